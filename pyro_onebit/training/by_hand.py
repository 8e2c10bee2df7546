"""What is known of a run that was trained by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyro_onebit.errors import InputError
from pyro_onebit.registry import MODELS, RECIPES, Registry


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What identifies a run whose programs were trained by hand, as far as it is known; None is what is not.

    Arguments:
        layers: Latent layers, 1 or 2.
        ndims: Dimensions of x.
        prob: Probability of codeword 1.
        model: The model's registered name, or else its class's or function's.
        guide: The guide's, likewise.
        objective: What was maximised.
        seed: The seed.
        steps: Steps of the training.
    """

    layers: int
    ndims: int
    prob: float
    model: str
    guide: str
    objective: str | None = None
    seed: int | None = None
    steps: int | None = None

    def program(self, registry: Registry[Any]) -> nn.Module:
        """The model or the guide, made by its registered name, with parameters of its own.

        Raises:
            InputError: If nothing is registered by that name, or it cannot be made as `build` makes it.
        """
        kind = registry.kind
        name = self.model if kind == MODELS.kind else self.guide
        if name in registry:
            try:
                return registry[name](self.ndims, self.prob, RECIPES["default"](self.layers).arch)
            except Exception as error:  # whatever a class makes of arguments that are not its own
                why = f"cannot be made as {kind}(ndims, prob, arch): {type(error).__name__}"
        else:
            why = "is not registered here"
        raise InputError(f"{kind} {name!r} {why}; give it: load_run(path, model=…, guide=…)")


def name_of(program: Any, registry: Registry[Any]) -> str:
    """A program's registered name, or else its class's or function's."""
    for name, entry in registry.items():
        if type(program) is entry:
            return name
    own = getattr(program, "__name__", type(program).__name__)
    return re.sub(r"[^\w-]+", "_", own).strip("_")
