"""The optimisers of a recipe."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyro.optim
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_onebit.errors import InputError
from pyro_onebit.internals import Adam, Uncompiled
from pyro_onebit.training.recipes import Recipe

#: Steps between two renewals of the eigenbasis.
_RENEWAL = 10
_EPS = 1e-8


class SOAP(Uncompiled):
    r"""SOAP (Vyas et al. 2024, algorithm 3) for matrices, those of one shape stacked.

    With gradients G of shape ``(matrices, rows, columns)``, the running means of :math:`G G^T` and
    :math:`G^T G` have eigenvectors :math:`Q_L, Q_R`. Adam's second moment is kept for
    :math:`Q_L^T G Q_R`, and its step is taken there and turned back. The first step only sets the
    bases; every ten steps one power iteration and a QR decomposition renew them.

    Libraries take the parameters one by one, which for four matrices of 48 x 48 costs more than the
    model's and the guide's gradient. The tests hold this to the same figures as ``pytorch_optimizer``.

    Arguments:
        params: Matrices; each must have a gradient at every step.
        lr: Learning rate.
        betas: Decay of the means of the gradient; and of its square and its products.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        super().__init__([{"params": own} for own in by_shape.values()], {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            self._step(group)

    def _step(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = group["params"]
        beta1, beta2 = group["betas"]
        grad = torch.stack([p.grad for p in params])  # type: ignore[misc]
        state = self.state[params[0]]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
            for side, product in _products(grad).items():
                state[f"product_{side}"] = (1.0 - beta2) * product
                state[f"basis_{side}"] = torch.linalg.eigh(state[f"product_{side}"]).eigenvectors.flip(-1)
            return
        state["step"] += 1
        step, left, right = state["step"], state["basis_left"], state["basis_right"]
        state["mean"].lerp_(grad, 1.0 - beta1)
        state["square"].lerp_((left.mT @ grad @ right).square(), 1.0 - beta2)
        direction = (left.mT @ state["mean"] @ right) / state["square"].sqrt().add_(_EPS)
        size = group["lr"] * (1.0 - beta2**step) ** 0.5 / (1.0 - beta1**step)
        torch._foreach_add_(params, list((left @ direction @ right.mT).unbind()), alpha=-size)
        for side, product in _products(grad).items():
            state[f"product_{side}"].lerp_(product, 1.0 - beta2)
            if step % _RENEWAL == 0:
                self._renew(state, side)

    def _renew(self, state: dict[str, Any], side: str) -> None:
        """The basis after one power iteration, its vectors in the order of their estimated eigenvalues."""
        basis = state[f"basis_{side}"]
        moved = state[f"product_{side}"] @ basis
        order = (basis * moved).sum(-2).argsort(-1, descending=True)
        along = order[..., :, None] if side == "left" else order[..., None, :]
        state["square"] = state["square"].take_along_dim(along, -2 if side == "left" else -1)
        state[f"basis_{side}"] = torch.linalg.qr(moved.take_along_dim(order[..., None, :], -1)).Q


def _products(grad: Tensor) -> dict[str, Tensor]:
    return {"left": grad @ grad.mT, "right": grad.mT @ grad}


def find_optimizer(text: str) -> Callable[[Sequence[nn.Parameter], float], torch.optim.Optimizer]:
    """What makes an optimizer of ``torch.optim`` or ``pyro.optim`` for parameters and a learning rate.

    Arguments:
        text: Its name, options in parentheses: ``SGD(momentum=0.9)``.

    Raises:
        InputError: If there is none of that name, or it cannot take a step here.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        named, keywords = (call.func, call.keywords) if isinstance(call, ast.Call) and not call.args else (call, [])
        name = named.id  # type: ignore[attr-defined]
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
        kind = getattr(torch.optim, name, None) or getattr(pyro.optim, name)({}).pt_optim_constructor
        [tried] = parameters = [nn.Parameter(torch.ones(1))]
        tried.grad = torch.ones(1)
        kind(parameters, lr=1e-3, **options).step()
    except Exception as error:  # whatever a text that is none, or an optimizer that needs more, leads to
        raise InputError(
            f"optimizer is {text!r}; it must be one of torch.optim or pyro.optim that steps from gradients alone, such "
            f"as AdamW or SGD(momentum=0.9) ({type(error).__name__}: {str(error)[:120]})"
        ) from None
    return lambda parameters, lr: kind(parameters, lr=lr, **options)


def make_optimizers(parameters: list[nn.Parameter], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """A recipe's optimizers: its own; or else Adam, and SOAP for the hidden matrices if it says so."""
    if recipe.optimizer is not None:
        return [find_optimizer(recipe.optimizer)(parameters, recipe.lr)]
    hidden = [p for p in parameters if recipe.soap and p.ndim == 2 and min(p.shape) > recipe.arch.width_x]
    others = [p for p in parameters if all(p is not h for h in hidden)]
    # Beside SOAP, with its short memory, no longer than a rare failure of the decoder needs to be remembered.
    betas = (0.95, 0.99) if recipe.soap else (0.9, 0.999)
    optimizers: list[torch.optim.Optimizer] = [Adam(others, lr=recipe.lr, betas=betas, fused=True)]
    if hidden:
        optimizers.append(SOAP(hidden, lr=recipe.lr, betas=(0.95, 0.95)))
    return optimizers


def check_like(found: Any, fresh: Any) -> None:
    """Refuse a state that is not made like a fresh one: names, types, shapes, and no number that is not finite.

    Arguments:
        found: The state, or a part of it.
        fresh: The same of programs or optimisers that have just been made.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(fresh, torch.Tensor):
        right = isinstance(found, torch.Tensor) and (found.shape, found.dtype) == (fresh.shape, fresh.dtype)
        right = right and (not found.is_floating_point() or bool(found.isfinite().all()))
    elif isinstance(fresh, dict):
        right = isinstance(found, dict) and list(found) == list(fresh)
    elif isinstance(fresh, list):
        right = isinstance(found, list) and len(found) == len(fresh)
    else:
        right = type(found) is type(fresh) and (found is None or math.isfinite(found))
    if not right:
        raise ValueError
    parts = fresh.keys() if isinstance(fresh, dict) else range(len(fresh)) if isinstance(fresh, list) else ()
    for part in parts:
        check_like(found[part], fresh[part])


class OneOptimizer(PyroOptim):
    """Steps all parameters together, where `PyroOptim` would make each an optimizer of its own."""

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe) -> None:
        self.parameters, self.recipe = parameters, recipe
        #: Steps taken.
        self.taken = 0
        self.optimizers = make_optimizers(parameters, recipe)

    @property
    def lr(self) -> float:
        """The next step's learning rate."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Take a step, and let the learning rate decay."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.decay_lr()

    def decay_lr(self) -> None:
        """Let the learning rate decay as a step does."""
        self.taken += 1
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._next(group["lr"])

    def _next(self, lr: float) -> float:
        first, last, share = self.recipe.lr, self.recipe.lr_final, self.taken / self.recipe.steps
        if self.recipe.schedule == "exponential":
            return lr * (last / first) ** (1.0 / self.recipe.steps)
        lefts = {"linear": 1.0 - share, "cosine": 0.5 + 0.5 * math.cos(math.pi * share), "constant": 1.0}
        return last + (first - last) * lefts[self.recipe.schedule]

    def moments(self) -> list[dict[str, Any]]:
        """The state of each optimizer, by the number of a parameter; learning rates follow from the step."""
        return [{str(i): own for i, own in one.state_dict()["state"].items()} for one in self.optimizers]

    def restore(self, moments: list[dict[str, Any]], taken: int) -> None:
        """Take up the state after so many steps.

        Raises:
            ValueError: If it is not made like that of these parameters' optimizers.
        """
        for one, own, fresh in zip(self.optimizers, moments, self._stepped().moments(), strict=True):
            # A parameter that has never had a gradient has no moments.
            check_like(own, {name: fresh[name] for name in own})
            for name, state in own.items():
                # Not every optimizer counts its steps.
                if "step" in state and not 0.0 <= float(state["step"]) <= float(fresh[name]["step"]) + taken - 1:
                    raise ValueError
            groups = one.state_dict()["param_groups"]
            one.load_state_dict({"state": {int(name): own[name] for name in own}, "param_groups": groups})
        for _ in range(taken):
            self.decay_lr()

    def _stepped(self) -> OneOptimizer:
        """The same for copies of the parameters, after a step without a gradient."""
        copies = [nn.Parameter(p.detach().clone()) for p in self.parameters]
        for p in copies:
            p.grad = torch.zeros_like(p)
        other = OneOptimizer(copies, self.recipe)
        other({})
        return other
