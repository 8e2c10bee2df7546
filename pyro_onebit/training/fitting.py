"""`fit`: stochastic variational inference from a seed to a judged run."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import pyro
import torch
from pyro.infer import SVI

from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError, ProgramError, TrainingError
from pyro_onebit.guides import Guide
from pyro_onebit.models import Model
from pyro_onebit.nn import PLAIN, Start
from pyro_onebit.programs import Pair
from pyro_onebit.reproducibility import default_dtype, tensors_on, usual_arithmetic
from pyro_onebit.system import progress
from pyro_onebit.training.config import DTYPES, Config
from pyro_onebit.training.optimizers import OneOptimizer, check_like
from pyro_onebit.training.recipes import Recipe
from pyro_onebit.training.run import Checkpoint, Run, check_built, first_layer, learned_start
from pyro_onebit.training.step import check_step, make_estimator

#: A history has about this many rows, whatever the number of steps.
_HISTORY_ROWS = 100


@usual_arithmetic()
def fit(
    model: Model,
    guide: Guide,
    data: BitsData,
    config: Config,
    *,
    quiet: bool = True,
    on_step: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Train a model and a guide, in place, and judge them exactly.

    A `Run` that holds them already changes with them; for another one, `build` makes new ones.

    By the default recipes the Gaussian guides learn in two stages. First their q(z1|x) and the model's p(x|z1) are
    trained alone, as one layer, from random weights; then all is trained, with new networks around what q(z1|x) has
    learned. Other guides start with the bits in the latent. Where that ends at a loss no lower than that of ignoring
    the latent altogether (each dimension's own entropy), the run begins again from random weights, and the better
    outcome stands. All stages count as its time.

    Arguments:
        model: A Pyro model of rows x.
        guide: Its guide.
        data: The codewords.
        config: Objective, preset, seed; its ndims, prob and guide describe `model`, `guide`, `data`.
        quiet: Show no progress bar (none is shown either where standard error is no terminal).
        on_step: Called with its number after each step.
        checkpoint: Where the state is kept, and from which the training resumes.

    What the caller has set of torch, numpy or Pyro makes no difference, and is as before afterwards. Several threads
    train one after the other, for torch and Pyro have one state in a process: train side by side in processes.

    Raises:
        TrainingError: If a loss, a gradient or the outcome's exact figures are not finite.
        InputError: If `data`, `model` or `guide` is not the configuration's, or a step needs more memory than there is.
    """
    check_built(model, guide, data, config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', and torch finds none here; take 'cpu'")
    check_step(config)
    run = Run(model, guide, data, config, config.recipe)
    try:
        pair = Pair(model, guide, data)
    except ProgramError as error:
        raise ProgramError(f"guide {config.guide!r}, model {config.model!r}: {error}") from None
    # The latents that x depends on, and those that the guide draws before.
    wide = 1 + pair.guide.latents.index(pair.latents[0])
    with (
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
        torch.random.fork_rng(),
        default_dtype(DTYPES[config.dtype]),
    ):
        torch.manual_seed(config.seed)
        try:
            _Training(run, model, guide, config, wide, quiet, on_step, checkpoint).train()
        except ArithmeticError as error:
            raise TrainingError(f"{error}; the last parameters before it are kept", run) from None
    return run


def _is_worse_than_no_latent(run: Run) -> bool:
    """Whether a run that was started with its bit in the latent would do better without one.

    A decoder that ignores z, and a guide that is the prior, cost each dimension's own entropy.
    """
    assert run.recipe is not None
    planted = run.recipe.arch.start.holds_the_bit
    return planted and bool(run.metrics["loss"] >= run.data.separate_entropy)


#: The first layer alone; all that the configuration has; and again from random weights, where a start was in vain.
_FIRST, _MAIN, _AGAIN = range(3)


@dataclass
class _Stage:
    """A stage of a training: its programs, their recipe, and its steps as the run counts them."""

    number: int
    model: Model
    guide: Guide
    recipe: Recipe
    wide: int
    steps: range


@dataclass
class _Training:
    """A run's training, from the beginning or from where it was left; arguments as for `fit`."""

    run: Run
    model: Model
    guide: Guide
    config: Config
    #: As for `make_estimator`.
    wide: int
    quiet: bool
    on_step: Callable[[int], None] | None
    checkpoint: Checkpoint | None

    def __post_init__(self) -> None:
        self.recipe = self.config.recipe
        self.numbers = (_FIRST, _MAIN) if self.recipe.first_steps else (_MAIN, _AGAIN)
        number = self.numbers[0]
        #: The planted start's outcome, while there is another attempt.
        self.planted: dict[str, Any] | None = None
        self.left = self.checkpoint.restore() if self.checkpoint else None
        if self.checkpoint and self.left:
            with self.checkpoint.restoring():
                number = self.numbers[self.numbers.index(self.left["stage"])]
        self.stage = self._stage(number)

    def _stage(self, number: int) -> _Stage:
        first, main = self.recipe.stages()
        if number == _FIRST:
            return _Stage(number, *first_layer(self.model, self.guide, self.run.data), first, 1, self._range(number))
        return _Stage(number, self.model, self.guide, main, self.wide, self._range(number))

    def _range(self, number: int) -> range:
        begin = self.recipe.first_steps
        return range(begin) if number == _FIRST else range(begin, self.recipe.steps)

    def train(self) -> None:
        """Go through the stages, and judge the outcome."""
        if self.stage.number == _FIRST:
            self._train()
            self._begin(_MAIN, learned_start(self.guide, self.run.data))
        if self.stage.number == _MAIN:
            self._train()
            # A state holds finite numbers.
            loss = min(self._judge(), sys.float_info.max)
            if _is_worse_than_no_latent(self.run):
                self.planted = {**copy.deepcopy(self._programs()), "loss": loss}
                self._begin(_AGAIN, PLAIN)
        if self.stage.number == _AGAIN:
            self._again()
        if math.isinf(self.run.metrics["loss"]):
            self._fail("is infinite")

    def _judge(self) -> float:
        """The exact loss; other figures may be unknown."""
        figures = self.run.judge()
        if figures["loss"] is None:
            self._fail(f"is not known: {figures.notes['loss']}")
        return float(figures["loss"])

    def _fail(self, how: str) -> NoReturn:
        self.run.metrics, self.run.truth = {}, None
        raise ArithmeticError(f"the outcome's exact loss {how}")

    def _begin(self, number: int, start: Start) -> None:
        self.stage = self._stage(number)
        for program in (self.stage.model, self.stage.guide):
            program.reset_parameters(start, self.run.data.prob)

    def _again(self) -> None:
        """Train from the start in which the latents carry nothing; keep the better outcome."""
        try:
            self._train()
            loss = self._judge()
        except ArithmeticError:
            loss = math.inf
        assert self.planted is not None
        if loss > self.planted["loss"]:
            self._load(self.planted)
            self.run.judge()

    def _programs(self) -> dict[str, Any]:
        return {"model": self.stage.model.state_dict(), "guide": self.stage.guide.state_dict()}

    def _load(self, states: dict[str, Any]) -> None:
        self.stage.model.load_state_dict(states["model"])
        self.stage.guide.load_state_dict(states["guide"])

    def _train(self) -> None:
        programs, device = (self.stage.model, self.stage.guide), torch.device(self.config.device)
        try:
            for program in programs:
                program.to(device)
            with tensors_on(self.config.device):
                self._steps()
        finally:
            for program in programs:
                program.cpu()

    def _steps(self) -> None:
        start = time.perf_counter()
        run, stage = self.run, self.stage
        stage.guide.train()
        estimator, x, rows = make_estimator(stage.model, stage.guide, run.data, stage.recipe, stage.wide)
        optimizer = OneOptimizer([*stage.model.parameters(), *stage.guide.parameters()], stage.recipe)
        svi = SVI(stage.model, stage.guide, optimizer, estimator, loss_and_grads=estimator)
        names, stride = ["stage", "step", "loss", *estimator.names, "lr"], _stride(self.recipe)
        begin, spent = self._resume(optimizer, names), run.seconds
        # The first layer alone has other terms than the whole: what is not in it costs nothing.
        known = len(run.history.get("step", []))
        run.history = {name: run.history.get(name, [0.0] * known) for name in names}
        steps: Iterable[int] = range(begin, stage.steps.stop)
        # A bar that is not shown would still make a semaphore, and a killed process leave it behind.
        if not self.quiet:
            steps = progress(steps, quiet=False, initial=begin, total=self.recipe.steps, leave=False, unit="step")
        try:
            for step in steps:
                lr = optimizer.lr
                estimator.set_step(step - stage.steps.start, stage.recipe.steps)
                loss = svi.step(x)
                if step % stride == 0:
                    terms = {name: value / rows for name, value in estimator.terms.items()}
                    row = {"stage": stage.number, "step": step, "loss": loss / rows, **terms, "lr": lr}
                    for name, value in row.items():
                        run.history[name].append(value)
                if self.on_step is not None:
                    self.on_step(step)
                if self.checkpoint is not None and self.checkpoint.due():
                    run.seconds = spent + time.perf_counter() - start
                    self.checkpoint.keep({**self._state(step + 1), "optimizers": optimizer.moments()})
        except ArithmeticError as error:
            raise ArithmeticError(f"step {step}: {error}") from None
        finally:
            stage.guide.eval()
            run.seconds = spent + time.perf_counter() - start

    def _state(self, step: int) -> dict[str, Any]:
        """What is kept before a step, beside the optimisers' moments."""
        on_gpu = self.config.device == "cuda"
        return {
            "stage": self.stage.number,
            "step": step,
            "seconds": self.run.seconds,
            "history": self.run.history,
            "planted": self.planted,
            "generators": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if on_gpu else [])],
            **self._programs(),
        }

    def _resume(self, optimizer: OneOptimizer, names: list[str]) -> int:
        """Take up the state that was left, once, if this training can have kept it; the step to begin with."""
        state, self.left = self.left, None
        begin, end = self.stage.steps.start, self.stage.steps.stop
        if self.checkpoint is None or state is None:
            return begin
        with self.checkpoint.restoring():
            moments, step, history = state.pop("optimizers"), int(state["step"]), state["history"]
            rows = [
                (number, own)
                for number in self.numbers
                for own in self._range(number)
                if own % _stride(self.recipe) == 0 and (number, own) < (self.stage.number, step)
            ]
            known = {"stage": [number for number, _ in rows], "step": [own for _, own in rows]}
            fresh = {
                **self._state(step),
                "history": {name: [0.0] * len(rows) for name in names} | known,
                "planted": {**self._programs(), "loss": 0.0} if self.stage.number == _AGAIN else None,
            }
            check_like(state, fresh)
            if history | known != history or not begin < step <= end or state["seconds"] < 0.0:
                raise ValueError
            optimizer.restore(moments, step - begin)
            self._load(state)
            self.run.history, self.run.seconds, self.planted = history, state["seconds"], state["planted"]
            own, *of_gpus = state["generators"]
            torch.set_rng_state(own)
            torch.cuda.set_rng_state_all(of_gpus)
        return step


def _stride(recipe: Recipe) -> int:
    """Steps between two rows of a history."""
    return -(-recipe.steps // _HISTORY_ROWS)
