"""A run: a trained model and guide, how they were trained, and how good they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from pyro_onebit.brought import ByHand, as_module, name_of
from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError
from pyro_onebit.exact import Evaluation, Truth, evaluate, kl_name
from pyro_onebit.guides import Guide, OneLayerGuide
from pyro_onebit.models import Model, OneLayerModel
from pyro_onebit.nn import Start, start_around
from pyro_onebit.programs import Pair
from pyro_onebit.registry import GUIDES, MODELS
from pyro_onebit.reproducibility import default_dtype, usual_arithmetic
from pyro_onebit.system import Shown
from pyro_onebit.training.config import Config, identity_of
from pyro_onebit.training.recipes import Recipe

#: What identifies a run: its configuration, or what is known of it.
AnyConfig = Config | ByHand


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


@dataclass(repr=False)
class Run(Shown):
    """A trained model and guide, how they were trained, and how good they are.

    `fit` makes one, and `Run.of` makes one of programs that were trained by hand.

    Arguments:
        model: The model.
        guide: The guide.
        data: The codewords.
        config: What identifies the run.
        recipe: How it was trained: the configuration's recipe, or what that was when it was trained; None: by hand.
        history: Lists of equal length: ``stage``, ``step``, ``loss``, ``lr`` and, where the objective is a sum
            of them, ``recon``, ``kl1`` (``kl2``) before about 100 of the steps, evenly spaced; nats per datum,
            estimated with the noise that training uses. ``stage`` is 0 while the first layer is trained alone, then
            1, and 2 once the run has begun again without its bit in the latent (see `fit`).
        seconds: Time of training in all stages; judging is not part of it. NaN: not known.
        metrics: The columns of ``results.csv``, None where a figure is not known; empty if training failed.
        truth: The top latent's densities as last judged; None before.
    """

    model: nn.Module
    guide: nn.Module
    data: BitsData
    config: AnyConfig
    recipe: Recipe | None
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        guide: Any,
        data: BitsData,
        *,
        objective: str | None = None,
        seed: int | None = None,
        steps: int | None = None,
        seconds: float = math.nan,
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> Run:
        """A judged run of programs that were trained by hand; what is not said of the training is not known.

        Arguments:
            model: A Pyro program of rows x: a module, or a function, whose parameters are copied from Pyro's store.
            guide: Its guide, likewise.
            data: The codewords.
            objective: What was maximised, in a word.
            seed: The seed.
            steps: Steps of the training.
            seconds: Time of the training.
            history: Lists of equal length, ``loss`` among them if the training is to be drawn (nats per datum).

        Raises:
            InputError: If `data` is none of bits.
            ProgramError: If the programs cannot be judged (`exact.evaluate`).
            ArithmeticError: Likewise.
        """
        check_bits(data)
        names = name_of(model, MODELS), name_of(guide, GUIDES)
        model, guide = (as_module(program, data.codewords) for program in (model, guide))
        config = ByHand(
            layers=len(Pair(model, guide, data).latents),
            ndims=data.ndims,
            prob=data.prob,
            model=names[0],
            guide=names[1],
            objective=objective,
            seed=seed,
            steps=steps,
            repeats=data.repeats if data.bits > 1 else None,
        )
        lists = {name: [float(value) for value in values] for name, values in (history or {}).items()}
        run = cls(model, guide, data, config, None, lists, seconds)
        run.judge()
        return run

    def shown(self) -> dict[str, Any]:
        """What identifies it, and its figures if it was judged."""
        known = identity_of(self.config) | self.metrics
        plain = {"bits", "repeats"} if self.config.bits == 1 else set()
        return {name: value for name, value in known.items() if name not in plain}

    def judge(self) -> Evaluation:
        """Compute `metrics` and `truth` from the parameters, by quadrature, on any number of threads alike."""
        with usual_arithmetic():
            figures = evaluate(self.model, self.guide, self.data)
        self.truth = figures.truth
        # Whatever the latents are called: the lowest one's term is `kl1`.
        names = {kl_name(latent): f"kl{i}" for i, latent in enumerate(figures.truth.latents, 1)}
        known = {names.get(name, name): value for name, value in figures.items()}
        steps = self.recipe.steps if self.recipe else self.config.steps
        seconds = None if math.isnan(self.seconds) else round(self.seconds, 3)
        self.metrics = {**identity_of(self.config), **known, "steps": steps, "seconds": seconds}
        return figures


def check_bits(data: Any) -> None:
    """Refuse codewords that are no bits, which a run has no columns for.

    Raises:
        InputError: If they are.
    """
    if not isinstance(data, BitsData):
        raise InputError(
            f"data is a {type(data).__name__}; a run's is a BitsData: judge programs of other codewords by "
            "`exact.evaluate`"
        )


def build(config: Config, recipe: Recipe | None = None) -> tuple[Model, Guide, BitsData]:
    """The untrained model, guide and data of a configuration; the same parameters for the same seed.

    Arguments:
        config: The configuration.
        recipe: Whose networks to make, if not the configuration's.
    """
    data = config.data
    with usual_arithmetic(), torch.random.fork_rng(devices=[]), default_dtype(data.dtype):
        torch.manual_seed(config.seed)
        arch = (recipe or config.recipe).arch
        model: Model = MODELS[str(config.model)](config.ndims, config.prob, arch)
        guide: Guide = GUIDES[str(config.guide)](config.ndims, config.prob, arch)
    guide.bind_model(model)
    return model, guide, data


def check_built(model: Model, guide: Guide, data: BitsData, config: Config) -> None:
    """Refuse what is not as `build` makes it from a configuration.

    Raises:
        InputError: If it is not.
    """
    check_bits(data)
    own_model, own_guide, own_data = build(config)
    if (data.repeats, data.bit_probs) != (own_data.repeats, own_data.bit_probs):
        raise InputError(f"data is {data}; the configuration's is {own_data}")
    for what, given, own in (("model", model, own_model), ("guide", guide, own_guide)):
        # Not a subclass, which may compute something else and would be saved, and loaded, as what it is not.
        if type(given) is not type(own):
            again = " as it was registered again since" if type(given).__name__ == type(own).__name__ else ""
            raise InputError(
                f"{what} is a {type(given).__name__}; the configuration has {type(own).__name__}{again}; take what "
                f"`build(config)` gives"
            )
        shapes, own_shapes = ({name: t.shape for name, t in one.state_dict().items()} for one in (given, own))
        if shapes != own_shapes:
            raise InputError(f"{what} has other networks than the configuration's; take what `build(config)` gives")


def first_layer(model: Model, guide: Guide, data: BitsData) -> tuple[Model, Guide]:
    """The one-layer model and guide of a model's and a guide's own networks next to x: what a first stage trains."""
    first, encoder = OneLayerModel(data.ndims, data.prob), OneLayerGuide()
    if hasattr(model, "p_x"):
        del first.p_x  # a module, in whose place a function may come
        first.p_x = model.p_x
    encoder.q_z1 = guide.q_z1
    return first, encoder


@torch.no_grad()
def learned_start(guide: Guide, data: BitsData) -> Start:
    """The start of the second stage, around the q(z1|x) that a guide has learned in the first one."""
    q = guide.q_z1(data.codewords)
    loc, scale = (tuple(part[:, 0].tolist()) for part in (q.mean, q.stddev))
    return start_around(loc, scale, guide.layers, data.ndims)
