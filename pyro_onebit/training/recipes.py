"""The recipes that a run can be trained by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import get_args

from pyro_onebit.errors import InputError
from pyro_onebit.nn import ONE_LAYER, REFERENCE, TWO_LAYER, Architecture
from pyro_onebit.registry import RECIPES
from pyro_onebit.settings import Schedule


@dataclass(frozen=True)
class FirstStage:
    """How the first layer is trained alone, by the ELBO, from random weights.

    What it learns is where the second stage starts, with new networks around it (`nn.start_around`).

    Arguments:
        share: Its share of the recipe's steps.
        lr: Learning rate of its first step.
        lr_final: What it decays to.
        particles: Lattice particles per codeword and step.
        noise_width: Standard deviation with which the lattice noise is drawn.
    """

    share: float = 0.0
    lr: float = 2e-2
    lr_final: float = 2e-3
    particles: int = 64
    noise_width: float = 3.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0:
            raise InputError(f"share is {self.share}; it must be at least 0 and less than 1")


@dataclass(frozen=True)
class Recipe:
    """How a preset trains.

    Arguments:
        arch: The networks.
        objective: Name of what is maximised.
        steps: Steps of the optimiser, those of the first stage included; a guide takes as many times these as its
            `effort` says.
        lr: Learning rate of the first step after the first stage.
        lr_final: What it decays to.
        particles: Lattice particles per codeword and step; None trains on a batch of `rows` with independent noise.
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
        first: The first stage, for a guide that learns its start.
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
    first: FirstStage = field(default=FirstStage())

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "samples", "logits"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "lr_final", "noise_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.schedule not in get_args(Schedule):
            raise InputError(f"schedule is {self.schedule!r}; it must be one of {', '.join(get_args(Schedule))}")

    @property
    def first_steps(self) -> int:
        """Steps of the first stage."""
        return round(self.first.share * self.steps)

    def stages(self) -> tuple[Recipe, Recipe]:
        """What each of the two stages is trained by; `first_steps` says whether there is a first one."""
        first, main = self.first, replace(self, steps=self.steps - self.first_steps, first=FirstStage())
        return replace(
            main,
            objective="elbo",
            steps=max(1, self.first_steps),
            lr=first.lr,
            lr_final=first.lr_final,
            particles=first.particles,
            noise_width=first.noise_width,
            soap=False,
        ), main

    def seen(self, ndims: int, wide: int = 1, words: int = 2) -> int:
        """How many of the particles the decoder sees, for so many codewords, of so many latents with wide noise."""
        return min(self.particles or 0, max(_MIN_SEEN, self.logits // (words * ndims)) * _MIN_SEEN ** (wide - 1))


#: A lattice of fewer particles along each latent whose noise is drawn wide has gaps.
_MIN_SEEN = 8
# Two layers need many particles for the KL terms between z1 and z2, and few for the reconstruction.
_DEFAULT = {
    1: Recipe(
        ONE_LAYER, "elbo", 500, lr=5e-3, lr_final=1e-5, particles=64, noise_width=3.5, clip=1.0, first=FirstStage(0.4)
    ),
    2: Recipe(
        TWO_LAYER,
        "stl",
        300,
        lr=5e-3,
        lr_final=5e-5,
        particles=128,
        logits=32_000,
        noise_width=2.0,
        soap=True,
        clip=1.0,
        first=FirstStage(200 / 300),
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
    """The default with eight times the steps, and the same first stage."""
    default = _DEFAULT[layers]
    return replace(default, steps=8 * default.steps, first=replace(default.first, share=default.first.share / 8))


@register_recipe("reference")
def _reference(layers: int) -> Recipe:
    """The original experiment's."""
    return Recipe(REFERENCE, "elbo", steps=5000, lr=5e-3, lr_final=1e-4)
