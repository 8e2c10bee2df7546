"""A recipe's optimizers, as SVI takes them."""

from __future__ import annotations

from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import nn

from pyro_onebit.config import Recipe
from pyro_onebit.soap import SOAP

__all__ = ["OneOptimizer", "make_optimizers"]


def make_optimizers(parameters: list[nn.Parameter], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """A recipe's optimizers: Adam, and SOAP for the square hidden layers if the recipe says so."""
    hidden = [p for p in parameters if recipe.soap and p.ndim == 2 and min(p.shape) > recipe.arch.width_x]
    others = [p for p in parameters if all(p is not h for h in hidden)]
    # Beside SOAP, with its short memory, no longer than a rare failure of the decoder needs to be remembered.
    betas = (0.95, 0.99) if recipe.soap else (0.9, 0.999)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(others, lr=recipe.lr, betas=betas, fused=True)]
    if hidden:
        optimizers.append(SOAP(hidden, lr=recipe.lr, betas=(0.95, 0.95)))
    return optimizers


class OneOptimizer(PyroOptim):
    """Steps all parameters together, where `PyroOptim` would make each an optimizer of its own."""

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe) -> None:
        self.decay = (recipe.lr_final / recipe.lr) ** (1.0 / recipe.steps)
        self.optimizers = make_optimizers(parameters, recipe)

    @property
    def lr(self) -> float:
        """The next step's learning rate."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Take a step, and let the learning rate decay."""
        for optimizer in self.optimizers:
            optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] *= self.decay
