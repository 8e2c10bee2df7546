"""What identifies a run, and the recipes it can be trained by."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch

from pyro_onebit.data import InputError, OneBitData, check_seed
from pyro_onebit.guides import GUIDES
from pyro_onebit.models import MODELS
from pyro_onebit.networks import ONE_LAYER, PLAIN, REFERENCE, TWO_LAYER, Architecture
from pyro_onebit.objectives import OBJECTIVES, PATHWISE, is_mean

__all__ = [
    "DEFAULT_GUIDES",
    "DTYPES",
    "PRESETS",
    "Config",
    "Device",
    "Dtype",
    "Preset",
    "Recipe",
    "differences",
    "layers_of",
]

Preset = Literal["default", "thorough", "reference"]
Dtype = Literal["float32", "float64"]
Device = Literal["cpu", "cuda"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: The guide a number of layers is trained with if none is named.
DEFAULT_GUIDES = {1: "gaussian", 2: "two_layer"}


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
#: The recipe of each preset and number of layers; `thorough` is the default with eight times the steps.
PRESETS: dict[str, dict[int, Recipe]] = {
    "default": _DEFAULT,
    "thorough": {layers: replace(recipe, steps=8 * recipe.steps) for layers, recipe in _DEFAULT.items()},
    "reference": dict.fromkeys((1, 2), Recipe(REFERENCE, "elbo", steps=5000, lr=5e-3, lr_final=1e-4)),
}


@dataclass(frozen=True)
class Config:
    """What identifies a run.

    Arguments:
        ndims: Dimensions of x.
        layers: Latent layers, 1 or 2.
        guide: A registered guide; None is the number of layers' own.
        seed: Seed of the initial parameters and of all noise.
        prob: Probability of codeword 1.
        objective: What is maximised; None is the preset's. Every run is judged on the plain ELBO.
        preset: The recipe.
        steps: Steps, if not the recipe's.
        lr: First learning rate, if not the recipe's.
        particles: Samples of the latents a row, if not the recipe's: K of a bound on several; on a lattice, all.
        dtype: Precision of the training; judging is in float64 always.
        device: Where to train.

    Raises:
        InputError: If a value is out of range, or a name is unknown.
    """

    ndims: int = 5
    layers: int = 1
    guide: str | None = None
    seed: int = 0
    prob: float = 0.5
    objective: str | None = None
    preset: Preset = "default"
    steps: int | None = None
    lr: float | None = None
    particles: int | None = None
    dtype: Dtype = "float32"
    device: Device = "cpu"

    def __post_init__(self) -> None:
        OneBitData(self.ndims, self.prob)
        _check_name("preset", self.preset, PRESETS)
        _check_name("dtype", self.dtype, DTYPES)
        _check_name("device", self.device, get_args(Device))
        if not isinstance(self.layers, int) or self.layers not in MODELS:
            raise InputError(f"layers is {self.layers!r}; it must be 1 or 2")
        if self.objective is None:
            object.__setattr__(self, "objective", PRESETS[self.preset][self.layers].objective)
        _check_name("objective", self.objective, OBJECTIVES)
        if self.guide is None:
            object.__setattr__(self, "guide", DEFAULT_GUIDES[self.layers])
        _check_name("guide", self.guide, GUIDES)
        guide = GUIDES[str(self.guide)]
        needed = layers_of(str(self.guide))
        if needed != self.layers:
            raise InputError(f"guide {self.guide!r} belongs to {needed} layer(s), not {self.layers}")
        if getattr(guide, "moving_support", False) and self.objective not in PATHWISE:
            raise InputError(
                f"objective {self.objective!r} is wrong for guide {self.guide!r}, whose parameters move where its "
                f"density is zero; take one of {', '.join(PATHWISE)}"
            )
        check_seed(self.seed)
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1")
        fewest = 2 if self.objective == "rws" else 1
        if self.particles is not None and self.particles < fewest:
            raise InputError(f"particles is {self.particles}; it must be at least {fewest}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"lr is {self.lr}; it must be positive")

    @property
    def recipe(self) -> Recipe:
        """The preset's recipe with this configuration's changes.

        With one dimension there is nothing for a latent to make agree: without one the loss is the
        entropy, and no loss is lower. Then none is planted.
        """
        recipe = PRESETS[self.preset][self.layers]
        start = recipe.arch.start
        if start != PLAIN:
            guide = GUIDES[str(self.guide)]
            start = PLAIN if self.ndims == 1 else getattr(guide, "start", start)
            steps, lr = recipe.steps * getattr(guide, "effort", 1), getattr(guide, "lr", recipe.lr)
            if self.layers == 1:
                # The rarer a codeword, the smaller its part of the gradient; two layers have steps to spare.
                steps = round(steps / (4.0 * self.prob * (1.0 - self.prob)))
            recipe = replace(recipe, steps=steps, lr=lr, arch=replace(recipe.arch, start=start))
        if not is_mean(str(self.objective)):
            rows = recipe.rows if recipe.particles is None else _ROWS
            recipe = replace(recipe, particles=None, rows=rows, samples=_SAMPLES)
        if self.particles and recipe.particles:
            recipe = replace(recipe, particles=self.particles)
        elif self.particles:
            recipe = replace(recipe, samples=self.particles)
        return replace(recipe, steps=self.steps or recipe.steps, lr=self.lr or recipe.lr)


def differences(there: Any, here: Any) -> str:
    """What is not the same in two of one dataclass, in words."""
    return "; ".join(
        f"{f.name} {old!r} there, {new!r} here"
        for f in fields(there)
        if (old := getattr(there, f.name)) != (new := getattr(here, f.name))
    )


def layers_of(guide: str) -> int:
    """The number of layers of the model that a registered guide goes with.

    Raises:
        InputError: If there is no such guide.
    """
    _check_name("guide", guide, GUIDES)
    return int(getattr(GUIDES[guide], "layers", 1))


def _check_name(what: str, name: Any, known: Collection[str]) -> None:
    if name not in known:
        raise InputError(f"{what} is {name!r}; it must be one of {', '.join(sorted(known))}")
