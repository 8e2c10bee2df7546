"""The recipes that a run can be trained by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyro_onebit.errors import InputError
from pyro_onebit.nn import ONE_LAYER, PLAIN, REFERENCE, TWO_LAYER, Architecture
from pyro_onebit.registry import GUIDES, OBJECTIVES, RECIPES

if TYPE_CHECKING:
    from pyro_onebit.training.config import Config


@dataclass(frozen=True)
class Recipe:
    """How a preset trains.

    Arguments:
        arch: The networks.
        objective: What is maximised, by name.
        steps: Steps of the optimiser.
        lr: Learning rate of the first step; it decays exponentially.
        lr_final: Learning rate of the last step.
        particles: Lattice particles a codeword and step; None trains on a batch of `rows` with independent noise.
        samples: Independent samples of the latents for each of those rows.
        logits: How many logits a step computes. Where `particles` would need more, the decoder sees fewer of
            them (`seen`), and the others take part in the KL terms alone.
        rows: Rows of that batch.
        noise_width: Standard deviation with which the first latent's lattice noise is drawn.
        soap: Whether hidden layers are trained with SOAP rather than Adam.
        clip: Largest norm of the gradient.
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

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "samples", "logits"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "lr_final", "noise_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")

    def seen(self, ndims: int) -> int:
        """How many of the particles the decoder sees."""
        return min(self.particles or 0, max(_MIN_SEEN, self.logits // (2 * ndims)))


#: What an objective is trained on that takes several independent samples a row, unless the preset has rows.
_ROWS, _SAMPLES = 100, 8
#: A lattice of fewer particles than this has gaps.
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


def resolve(config: Config) -> Recipe:
    """The recipe that a configuration trains by: its preset's, with what its guide and the configuration change.

    With one dimension there is nothing for a latent to make agree: without one the loss is the
    entropy, and no loss is lower. Then none is planted.
    """
    recipe: Recipe = RECIPES[config.preset](config.layers)
    start = recipe.arch.start
    if start != PLAIN:
        guide = GUIDES[str(config.guide)]
        start = PLAIN if config.ndims == 1 else guide.start or start
        steps, lr = recipe.steps * guide.effort, guide.lr or recipe.lr
        if config.layers == 1:
            # The rarer a codeword, the smaller its part of the gradient; two layers have steps to spare.
            steps = round(steps / (4.0 * config.prob * (1.0 - config.prob)))
        recipe = replace(recipe, steps=steps, lr=lr, arch=replace(recipe.arch, start=start))
    if not OBJECTIVES[str(config.objective)].is_mean:
        rows = recipe.rows if recipe.particles is None else _ROWS
        recipe = replace(recipe, particles=None, rows=rows, samples=_SAMPLES)
    if config.particles and recipe.particles:
        recipe = replace(recipe, particles=config.particles)
    elif config.particles:
        recipe = replace(recipe, samples=config.particles)
    return replace(recipe, steps=config.steps or recipe.steps, lr=config.lr or recipe.lr)
