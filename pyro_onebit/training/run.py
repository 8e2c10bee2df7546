"""A run: a trained model and guide, how they were trained, and how good they are."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pyro_onebit.data import OneBitData
from pyro_onebit.exact import Evaluation, Truth, evaluate
from pyro_onebit.guides import Guide
from pyro_onebit.models import Model
from pyro_onebit.registry import GUIDES, MODELS
from pyro_onebit.reproducibility import default_dtype, usual_arithmetic
from pyro_onebit.training.config import DTYPES, IDENTITY, Config
from pyro_onebit.training.recipes import Recipe


class Checkpoint(Protocol):
    """Where a training keeps its state while it runs, as tensors, numbers, strings, lists and dictionaries."""

    def restore(self) -> dict[str, Any] | None:
        """The state last kept; None if there is none."""

    def restoring(self) -> AbstractContextManager[None]:
        """Within, a state is put in place; what does not fit there becomes an `InputError`."""

    def due(self) -> bool:
        """Whether it is time to keep another state."""

    def keep(self, state: dict[str, Any]) -> None:
        """Keep a state in place of the last one."""


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
        right = type(found) is type(fresh) and math.isfinite(found)
    if not right:
        raise ValueError
    parts = fresh.keys() if isinstance(fresh, dict) else range(len(fresh)) if isinstance(fresh, list) else ()
    for part in parts:
        check_like(found[part], fresh[part])


@dataclass
class Run:
    """A trained model and guide, how they were trained, and how good they are.

    Arguments:
        model: The model.
        guide: The guide.
        data: The codewords.
        config: What identifies the run.
        recipe: How it was trained: the configuration's recipe, or what that was when it was trained.
        history: Lists of equal length: ``attempt``, ``step``, ``loss``, ``lr`` and, where the objective is a sum
            of them, ``recon``, ``kl1`` (``kl2``) before about 100 of the steps, evenly spaced; nats per datum,
            estimated with the noise that training uses. ``attempt`` is 1 once the run has begun again
            without its bit in the latent (see `fit`).
        seconds: Time of training, a second attempt included; judging is not.
        metrics: The columns of ``results.csv``; empty if training failed.
        truth: The top latent's densities as last judged; None before.
    """

    model: Model
    guide: Guide
    data: OneBitData
    config: Config
    recipe: Recipe
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    def judge(self) -> Evaluation:
        """Compute `metrics` and `truth` from the parameters, by quadrature, on any number of threads alike."""
        with usual_arithmetic():
            figures = evaluate(self.model, self.guide, self.data)
        self.truth = figures.truth
        identity = {name: getattr(self.config, name) for name in IDENTITY}
        self.metrics = {**identity, **figures, "steps": self.recipe.steps, "seconds": round(self.seconds, 3)}
        return figures


def build(config: Config, recipe: Recipe | None = None) -> tuple[Model, Guide, OneBitData]:
    """The untrained model, guide and data of a configuration; the same parameters for the same seed.

    Arguments:
        config: The configuration.
        recipe: Whose networks to make, if not the configuration's.
    """
    data = OneBitData(config.ndims, config.prob, DTYPES[config.dtype])
    with usual_arithmetic(), torch.random.fork_rng(devices=[]), default_dtype(data.dtype):
        torch.manual_seed(config.seed)
        arch = (recipe or config.recipe).arch
        model: Model = MODELS[str(config.model)](config.ndims, config.prob, arch)
        guide: Guide = GUIDES[str(config.guide)](config.ndims, config.prob, arch)
    guide.bind_model(model)
    return model, guide, data
