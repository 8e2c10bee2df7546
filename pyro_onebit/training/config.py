"""What identifies a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import torch

from pyro_onebit.data import MAX_BITS, BitsData, deal, gray_code, make_data, word_probs
from pyro_onebit.errors import InputError
from pyro_onebit.exact import gaussian_optimum, quantile_places
from pyro_onebit.files import ordered_fields
from pyro_onebit.nn import PLAIN, Start, start_around
from pyro_onebit.registry import GUIDES, MODELS, OBJECTIVES, RECIPES
from pyro_onebit.reproducibility import check_seed
from pyro_onebit.settings import Device, Dtype, RunSettings, StartName
from pyro_onebit.training.optimizers import find_optimizer
from pyro_onebit.training.recipes import FirstStage, Recipe

DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: The model and the guide that a number of layers is trained with if none is named.
DEFAULT_MODELS = {1: "one_layer", 2: "two_layer"}
DEFAULT_GUIDES = {1: "gaussian", 2: "two_layer"}
#: The fields of a run's configuration that are columns of its row of results.
IDENTITY = ("layers", "ndims", "bits", "repeats", "prob", "model", "guide", "objective", "seed")
#: An objective that takes several independent samples per row is trained on so many, unless the preset has rows.
_ROWS, _SAMPLES = 100, 8
#: At a thousand steps a second, eleven days.
_MAX_STEPS = 10**9


@dataclass(frozen=True)
class Config(RunSettings):
    """What identifies a run. Arguments: as for `RunSettings`.

    Raises:
        InputError: If a value is out of range, or a name is unknown.
    """

    def __post_init__(self) -> None:
        recipe = RECIPES.find(self.preset)
        for name, known in (("start", get_args(StartName)), ("dtype", get_args(Dtype)), ("device", get_args(Device))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        self._deal()
        if not isinstance(self.layers, int) or self.layers not in DEFAULT_MODELS:
            raise InputError(f"layers is {self.layers!r}; it must be 1 or 2")
        defaults = {
            "model": DEFAULT_MODELS[self.layers],
            "guide": DEFAULT_GUIDES[self.layers],
            "objective": recipe(self.layers).objective,
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for registry, chosen in ((MODELS, self.model), (GUIDES, self.guide)):
            if (layers := registry.find(chosen).layers) != self.layers:
                raise InputError(
                    f"{registry.kind} {chosen!r} belongs to {layers} layer(s), not {self.layers}; take layers {layers} "
                    f"or another {registry.kind}"
                )
        objective = OBJECTIVES.find(self.objective)
        if GUIDES[str(self.guide)].moving_support and not objective.pathwise:
            pathwise = [name for name, known in OBJECTIVES.items() if known.pathwise]
            raise InputError(
                f"objective {self.objective!r} is wrong for guide {self.guide!r}, whose parameters move where its "
                f"density is zero; take one of {', '.join(pathwise)}"
            )
        if self.start == "analytic" and not (GUIDES[str(self.guide)].learns_start and recipe(self.layers).first.share):
            raise InputError(
                f"start is 'analytic', and guide {self.guide!r} with preset {self.preset!r} has a start of its own; "
                f"leave it out"
            )
        check_seed(self.seed)
        if self.steps is not None and not 1 <= self.steps <= _MAX_STEPS:
            raise InputError(f"steps is {self.steps}; it must be from 1 to {_MAX_STEPS}")
        if self.particles is not None and self.particles < objective.fewest:
            raise InputError(f"particles is {self.particles}; it must be at least {objective.fewest}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"lr is {self.lr}; it must be positive")
        if self.noise_width and not self.recipe.particles:
            raise InputError("noise_width is given, and the recipe or the objective trains on no lattice; leave it out")
        if self.recipe.optimizer is not None:
            find_optimizer(self.recipe.optimizer)

    def _deal(self) -> None:
        """Make `ndims`, `bits` and `repeats` agree; `repeats` is None if that is what the others say."""
        if self.repeats is not None:
            BitsData(self.repeats)
            ndims, bits = sum(self.repeats), len(self.repeats)
            if self.ndims not in (Config.ndims, ndims) or self.bits not in (1, bits):
                raise InputError(
                    f"repeats is {' '.join(map(str, self.repeats))}, so ndims is {ndims}, bits {bits}; leave these out"
                )
            even = self.repeats == deal(ndims, bits)
            for name, value in (("ndims", ndims), ("bits", bits), ("repeats", None if even else self.repeats)):
                object.__setattr__(self, name, value)
        if self.bits not in range(1, MAX_BITS + 1):
            raise InputError(f"bits is {self.bits!r}; it must be a whole number from 1 to {MAX_BITS}")
        if self.bits > 1 and isinstance(self.ndims, int) and self.ndims < self.bits:
            raise InputError(f"ndims is {self.ndims} and bits {self.bits}; every bit needs a dimension")
        _ = self.data  # which says what is out of range

    @property
    def data(self) -> BitsData:
        """The codewords."""
        repeats = self.repeats or ((self.ndims,) if self.bits == 1 else deal(self.ndims, self.bits))
        return make_data(repeats, self.prob, DTYPES[self.dtype])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it is trained by: its preset's, with what its guide and the configuration change.

        With one dimension per bit there is nothing for a latent to make agree: without one the loss is the
        entropy, and no loss is lower. Then no bit is planted.
        """
        recipe: Recipe = RECIPES[self.preset](self.layers)
        start, guide = recipe.arch.start, GUIDES[str(self.guide)]
        if start != PLAIN:
            steps, first = recipe.steps * guide.effort, recipe.first
            # The rarer a codeword, the smaller its part of the gradient; two layers have steps to spare.
            rarity = 4.0 * self.prob * (1.0 - self.prob) if self.layers == 1 else 1.0
            if guide.learns_start and first.share:
                # The more codewords, the longer it takes one layer to find their places.
                longer = (1 if self.bits == 1 else 2 * self.bits) / math.sqrt(rarity)
                alone, rest = longer * first.share * steps, (1.0 - first.share) * steps
                rest *= longer if self.layers == 1 else 1
                if self.start == "random":
                    start, steps, first = PLAIN, round(alone + rest), replace(first, share=alone / (alone + rest))
                else:
                    start, steps, first = self._analytic_start(), round(rest), FirstStage()
            else:
                start, first = PLAIN if self.ndims == self.bits else guide.start or start, FirstStage()
                steps = round(steps * (self.bits if self.layers == 1 else 1) / rarity)
            lr, lr_final = guide.lr or recipe.lr, guide.lr_final or recipe.lr_final
            arch = replace(recipe.arch, start=start)
            recipe = replace(recipe, steps=steps, lr=lr, lr_final=lr_final, arch=arch, first=first)
        if not OBJECTIVES[str(self.objective)].recorded:
            rows = recipe.rows if recipe.particles is None else _ROWS
            recipe = replace(recipe, particles=None, rows=rows, samples=_SAMPLES)
        if self.particles and recipe.particles:
            recipe = replace(recipe, particles=self.particles)
        elif self.particles:
            recipe = replace(recipe, samples=self.particles)
        arch = replace(recipe.arch, **self._given("width_x", "width_z", "hidden_layers"))
        if self.bits > 1:
            arch = replace(arch, repeats=self.data.repeats)
        objective = str(self.objective)
        return replace(
            recipe, objective=objective, arch=arch, **self._given("steps", "lr", "noise_width", "optimizer", "schedule")
        )

    def _analytic_start(self) -> Start:
        """Around the best Gaussian or, where z1's scale is free, places by the codewords' probabilities.

        The codewords of several bits are in the order of the Gray code.
        """
        order = gray_code(self.data.repeats)
        if self.layers == 2 and self.ndims > self.bits:
            places = quantile_places(order, word_probs([self.prob] * self.bits))
            return start_around(*places, self.layers, self.ndims)
        best = gaussian_optimum(self.data, order=None if self.bits == 1 else order)
        return start_around(best.loc, best.scale, self.layers, self.ndims)

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def identity_of(config: Any) -> dict[str, Any]:
    """What identifies a run (`IDENTITY`), as a table has it."""
    return {name: getattr(config, name) for name in IDENTITY} | {"repeats": " ".join(map(str, config.data.repeats))}


def differences(there: Any, here: Any) -> str:
    """What is not the same in two of one dataclass, in words."""
    return "; ".join(
        f"{f.name} {old!r} there, {new!r} here"
        for f in ordered_fields(there)
        if f.compare and (old := getattr(there, f.name)) != (new := getattr(here, f.name))
    )
