"""The recipes that a run can be trained by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pyro_onebit.errors import InputError
from pyro_onebit.nn import ONE_LAYER, REFERENCE, TWO_LAYER, Architecture
from pyro_onebit.registry import RECIPES

Schedule = Literal["exponential", "linear", "cosine", "constant"]


@dataclass(frozen=True)
class Recipe:
    """How a preset trains.

    Arguments:
        arch: The networks.
        objective: What is maximised, by name.
        steps: Steps of the optimiser.
        lr: Learning rate of the first step.
        lr_final: What it decays to.
        particles: Lattice particles a codeword and step; None trains on a batch of `rows` with independent noise.
        samples: Independent samples of the latents for each of those rows.
        logits: How many logits a step computes. Where `particles` would need more, the decoder sees fewer of
            them (`seen`), and the others take part in the KL terms alone.
        rows: Rows of that batch.
        noise_width: Standard deviation with which the first latent's lattice noise is drawn.
        soap: Whether hidden layers are trained with SOAP rather than Adam.
        clip: Largest norm of the gradient.
        optimizer: An optimizer of ``torch.optim`` or ``pyro.optim`` for all parameters, ``AdamW`` or
            ``SGD(momentum=0.9)``, in place of Adam and SOAP.
        schedule: How the learning rate decays.
    """

    arch: Architecture
    objective: str
    steps: int
    lr: float
    lr_final: float
    particles: int | None = None
    logits: int = 6_400_000
    rows: int = 1000
    samples: int = 1
    noise_width: float = 1.0
    soap: bool = False
    clip: float | None = None
    optimizer: str | None = None
    schedule: Schedule = "exponential"

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "samples", "logits"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "lr_final", "noise_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.schedule not in get_args(Schedule):
            raise InputError(f"schedule is {self.schedule!r}; it must be one of {', '.join(get_args(Schedule))}")

    def seen(self, ndims: int, wide: int = 1) -> int:
        """How many of the particles the decoder sees, where the noise of so many latents is drawn wide."""
        return min(self.particles or 0, max(_MIN_SEEN, self.logits // (2 * ndims)) * _MIN_SEEN ** (wide - 1))


#: A lattice of fewer particles along each latent whose noise is drawn wide has gaps.
_MIN_SEEN = 8
# Two layers need many particles for the KL terms between z1 and z2, and few for the reconstruction.
_DEFAULT = {
    1: Recipe(ONE_LAYER, "elbo", 1000, lr=5e-3, lr_final=1e-5, particles=64, noise_width=3.5, clip=1.0),
    2: Recipe(
        TWO_LAYER,
        "stl",
        1500,
        lr=5e-3,
        lr_final=5e-5,
        particles=128,
        logits=32_000,
        noise_width=2.0,
        soap=True,
        clip=1.0,
    ),
}


#: A decorator that makes a recipe known by a name, to `Config`, the command line and worker processes. It stands over a
#: function that takes the number of layers to the `Recipe`; ``RECIPES["default"](2)`` is one to start from.
register_recipe = RECIPES.register


@register_recipe("default")
def _default(layers: int) -> Recipe:
    return _DEFAULT[layers]


@register_recipe("thorough")
def _thorough(layers: int) -> Recipe:
    """The default with eight times the steps."""
    return replace(_DEFAULT[layers], steps=8 * _DEFAULT[layers].steps)


@register_recipe("reference")
def _reference(layers: int) -> Recipe:
    """The original experiment's."""
    return Recipe(REFERENCE, "elbo", steps=5000, lr=5e-3, lr_final=1e-4)
