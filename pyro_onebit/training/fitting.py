"""`fit`: stochastic variational inference from a seed to a judged run."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError, ProgramError, TrainingError
from pyro_onebit.guides import Guide, OneLayerGuide
from pyro_onebit.models import Model, OneLayerModel
from pyro_onebit.nn import PLAIN, Start, start_around
from pyro_onebit.programs import Pair
from pyro_onebit.reproducibility import default_dtype, tensors_on, usual_arithmetic
from pyro_onebit.system import progress
from pyro_onebit.training.config import DTYPES, Config
from pyro_onebit.training.optimizers import OneOptimizer, check_like
from pyro_onebit.training.recipes import Recipe
from pyro_onebit.training.run import Checkpoint, Run, build, check_bits
from pyro_onebit.training.step import check_step, make_estimator

#: A history has about this many rows, whatever the number of steps.
_HISTORY_ROWS = 100


@contextmanager
def _isolated(config: Config) -> Iterator[None]:
    """Pyro's store and validation flag, torch's generator and dtype, are as before afterwards."""
    with ExitStack() as stack:
        stack.enter_context(pyro.get_param_store().scope())
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(default_dtype(DTYPES[config.dtype]))
        torch.manual_seed(config.seed)
        yield


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
    check_bits(data)
    if (data.repeats, data.bit_probs) != (config.data.repeats, config.data.bit_probs):
        raise InputError(f"data is {data}; the configuration's is {config.data}")
    own_model, own_guide, _ = build(config)
    for what, given, own in (("model", model, own_model), ("guide", guide, own_guide)):
        # Not a subclass, which may compute something else and would be saved, and loaded, as what it is not.
        if type(given) is not type(own):
            again = " as it was registered again since" if type(given).__name__ == type(own).__name__ else ""
            raise InputError(
                f"{what} is a {type(given).__name__}; the configuration has {type(own).__name__}{again}; take what "
                f"`build(config)` gives"
            )
        if _shapes(given) != _shapes(own):
            raise InputError(f"{what} has other networks than the configuration's; take what `build(config)` gives")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', and torch finds none here; take 'cpu'")
    check_step(config)
    run = Run(model, guide, data, config, config.recipe)
    try:
        pair = Pair(model, guide, data)
    except ProgramError as error:
        raise ProgramError(f"guide {config.guide!r}, model {config.model!r}: {error}") from None
    with _isolated(config):
        # The latents that x depends on, and those that the guide draws before.
        wide = 1 + pair.guide.latents.index(pair.latents[0])
        training = _Training(run, model, guide, config, wide, quiet, on_step, checkpoint)
        try:
            training.train()
        except ArithmeticError as error:
            raise TrainingError(f"{error}; the last parameters before it are kept", run) from None
    return run


def _shapes(program: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in program.state_dict().items()}


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


def _first_layer(model: Model, guide: Guide, data: BitsData) -> tuple[Model, Guide]:
    """The one-layer model and guide of a model's and a guide's own networks next to x."""
    first, encoder = OneLayerModel(data.ndims, data.prob), OneLayerGuide()
    if hasattr(model, "p_x"):
        del first.p_x  # a module, in whose place a function may come
        first.p_x = model.p_x
    encoder.q_z1 = guide.q_z1
    return first, encoder


class _Training:
    """A run's training, from the beginning or from where it was left."""

    def __init__(
        self,
        run: Run,
        model: Model,
        guide: Guide,
        config: Config,
        wide: int,
        quiet: bool,
        on_step: Callable[[int], None] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.model, self.guide, self.config, self.recipe = model, guide, config, config.recipe
        self.run, self.wide, self.quiet, self.on_step, self.checkpoint = run, wide, quiet, on_step, checkpoint
        self.numbers = (_FIRST, _MAIN) if self.recipe.first_steps else (_MAIN, _AGAIN)
        self.stage = self._stage(self.numbers[0])
        #: The planted start's outcome, while there is another attempt.
        self.planted: dict[str, Any] | None = None
        self.left = checkpoint.restore() if checkpoint else None
        if checkpoint and self.left:
            with checkpoint.restoring():
                self._check(self.left)
            run.history, run.seconds, self.planted = (self.left[name] for name in ("history", "seconds", "planted"))

    def _stage(self, number: int) -> _Stage:
        first, main = self.recipe.stages()
        begin, end = self.recipe.first_steps, self.recipe.steps
        if number == _FIRST:
            return _Stage(number, *_first_layer(self.model, self.guide, self.run.data), first, 1, range(begin))
        return _Stage(number, self.model, self.guide, main, self.wide, range(begin, end))

    def _check(self, left: dict[str, Any]) -> None:
        """Refuse a state that is none of this training; `_resume` does of its optimisers and generators."""
        check_like({name: left[name] for name in ("stage", "step", "seconds")}, {"stage": 0, "step": 0, "seconds": 0.0})
        self.stage = self._stage(self.numbers[self.numbers.index(left["stage"])])
        fresh, planted, steps = self._states(), left["planted"], self.stage.steps
        check_like({name: left[name] for name in fresh}, fresh)
        if (planted is not None) != (self.stage.number == _AGAIN):
            raise ValueError
        if planted is not None:
            check_like(planted, {**fresh, "loss": 0.0})
        if not (steps.start < left["step"] <= steps.stop and left["seconds"] >= 0.0):
            raise ValueError
        done = [(number, self._stage(number).steps) for number in self.numbers if number < self.stage.number]
        done.append((self.stage.number, range(steps.start, left["step"])))
        rows = [(number, step) for number, own in done for step in own if step % _stride(self.recipe) == 0]
        figures = dict(left["history"])
        if list(zip(figures.pop("stage"), figures.pop("step"), strict=True)) != rows:
            raise ValueError
        check_like(list(figures.values()), [[0.0] * len(rows)] * len(figures))

    @property
    def _on_gpu(self) -> bool:
        return self.config.device == "cuda"

    def train(self) -> None:
        """Go through the stages, and judge the outcome."""
        if self.stage.number == _FIRST:
            self._train()
            self._begin(_MAIN, self._learned())
        again = self.stage.number == _AGAIN
        if not again:
            self._train()
            # A state holds finite numbers.
            loss = min(self._judge(), sys.float_info.max)
            if again := _is_worse_than_no_latent(self.run):
                self.planted = {**copy.deepcopy(self._states()), "loss": loss}
                self._begin(_AGAIN, PLAIN)
        if again:
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

    def _learned(self) -> Start:
        """The start around what the first stage has learned."""
        with torch.no_grad():
            q = self.stage.guide.q_z1(self.run.data.codewords)
            loc, scale = (tuple(part[:, 0].tolist()) for part in (q.mean, q.stddev))
        return start_around(loc, scale, self.config.layers, self.config.ndims)

    def _again(self) -> None:
        """Train from the start in which the latents carry nothing; keep the better outcome."""
        assert self.planted is not None
        try:
            self._train()
            better = self._judge() <= self.planted["loss"]
        except ArithmeticError:
            better = False
        if not better:
            self._load(self.planted)
            self.run.judge()

    def _states(self) -> dict[str, Any]:
        return {"model": self.stage.model.state_dict(), "guide": self.stage.guide.state_dict()}

    def _load(self, states: dict[str, Any]) -> None:
        self.stage.model.load_state_dict(states["model"])
        self.stage.guide.load_state_dict(states["guide"])

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.stage.model.parameters(), *self.stage.guide.parameters()]

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
        optimizer = OneOptimizer(self._parameters(), stage.recipe)
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
                    self._keep(step + 1, optimizer)
        except ArithmeticError as error:
            raise ArithmeticError(f"step {step}: {error}") from None
        finally:
            stage.guide.eval()
            run.seconds = spent + time.perf_counter() - start

    def _keep(self, step: int, optimizer: OneOptimizer) -> None:
        assert self.checkpoint is not None
        state = {
            "stage": self.stage.number,
            "step": step,
            "seconds": self.run.seconds,
            "history": self.run.history,
            "planted": self.planted,
            "optimizers": optimizer.moments(),
            "generators": self._generators(),
            **self._states(),
        }
        self.checkpoint.keep(state)

    def _generators(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if self._on_gpu else [])]

    def _resume(self, optimizer: OneOptimizer, names: list[str]) -> int:
        """Take up the state that was left, once; the step to begin with."""
        state, self.left = self.left, None
        if self.checkpoint is None or state is None:
            return self.stage.steps.start
        with self.checkpoint.restoring():
            if list(state["history"]) != names:
                raise ValueError
            step = state["step"] - self.stage.steps.start
            check_like(state["generators"], self._generators())
            optimizer.restore(state["optimizers"], step)
            self._load(state)
            own, *of_gpus = state["generators"]
            torch.set_rng_state(own)
            if self._on_gpu:
                torch.cuda.set_rng_state_all(of_gpus)
            return int(state["step"])


def _stride(recipe: Recipe) -> int:
    """Steps between two rows of a history."""
    return -(-recipe.steps // _HISTORY_ROWS)
