"""`fit`: stochastic variational inference from a seed to a judged run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from tqdm import tqdm

from pyro_onebit.compiled import CompiledELBO, EagerELBO, NotCompilableError
from pyro_onebit.config import DTYPES, Config
from pyro_onebit.data import InputError, OneBitData
from pyro_onebit.exact import Evaluation, Truth, evaluate
from pyro_onebit.guides import GUIDES
from pyro_onebit.matching import check_guide, is_reparameterised
from pyro_onebit.models import MODELS
from pyro_onebit.networks import PLAIN, Program
from pyro_onebit.noise import LatticeNoise
from pyro_onebit.numerics import default_dtype, one_thread
from pyro_onebit.objectives import is_mean, make_objective
from pyro_onebit.optimizers import OneOptimizer
from pyro_onebit.oracle import OracleGuide
from pyro_onebit.progress import Progress

__all__ = ["Run", "TrainingError", "build", "fit"]

#: A history has about this many rows, whatever the number of steps.
_HISTORY_ROWS = 100


@dataclass
class Run:
    """A trained model and guide, how they were trained, and how good they are.

    Arguments:
        history: Lists of equal length: ``attempt``, ``step``, ``loss``, ``lr`` and, where the objective is a sum
            of them, ``recon``, ``kl1`` (``kl2``) before about 100 of the steps, evenly spaced; nats per datum,
            estimated with the noise that training uses. ``attempt`` is 1 once the run has begun again
            without its bit in the latent (see `fit`).
        seconds: Time of training, a second attempt included; judging is not.
        metrics: The columns of ``results.csv``; empty if training failed.
        truth: The top latent's densities as last judged; None before.
    """

    model: nn.Module
    guide: nn.Module
    data: OneBitData
    config: Config
    history: dict[str, list[float]]
    seconds: float
    metrics: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    def judge(self) -> Evaluation:
        """Compute `metrics` and `truth` from the parameters, by quadrature."""
        figures = evaluate(self.model, self.guide, self.data)
        self.truth = figures.truth
        config = self.config
        names = {
            "ndims": config.ndims,
            "prob": config.prob,
            "layers": config.layers,
            "guide": config.guide,
            "objective": config.objective,
            "seed": config.seed,
        }
        self.metrics = {**names, **figures, "steps": config.recipe.steps, "seconds": round(self.seconds, 3)}
        return figures


class TrainingError(RuntimeError):
    """Training or judging met a value that is not finite; `run` holds the last parameters before it."""

    run: Run


def build(config: Config) -> tuple[nn.Module, nn.Module, OneBitData]:
    """The untrained model, guide and data of a configuration; the same parameters for the same seed."""
    data = OneBitData(config.ndims, config.prob, DTYPES[config.dtype])
    with torch.random.fork_rng(devices=[]), default_dtype(data.dtype):
        torch.manual_seed(config.seed)
        arch = config.recipe.arch
        model = MODELS[config.layers](config.ndims, config.prob, arch)
        guide = GUIDES[str(config.guide)](config.ndims, config.prob, arch)
    if isinstance(guide, OracleGuide):
        guide.attend(model)
    return model, guide, data


@contextmanager
def _isolated(config: Config) -> Iterator[None]:
    """Pyro's store and validation flag, torch's generator, dtype and thread count, are as before afterwards.

    One thread: a run must come out the same alone and beside others.
    """
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        stack.enter_context(pyro.get_param_store().scope())
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(default_dtype(DTYPES[config.dtype]))
        torch.manual_seed(config.seed)
        yield


def fit(
    model: nn.Module,
    guide: nn.Module,
    data: OneBitData,
    config: Config,
    *,
    quiet: bool = True,
    on_step: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a model and a guide, in place, and judge them exactly.

    The default recipes start with the bit in the latent. Where that ends at a loss no lower than
    that of ignoring the latent altogether (ndims times the entropy; so it is at ndims 1), the run
    begins again from the plain start, and the better outcome stands. Both count as its time.

    Arguments:
        model: A Pyro model of rows x.
        guide: Its guide.
        data: The codewords.
        config: Objective, preset, seed; its ndims, prob and guide describe `model`, `guide`, `data`.
        quiet: Show no progress bar (none is shown either where standard error is no terminal).
        on_step: Called with its number after each step.
        progress: Where the state is kept; what is there already is gone on from.

    Raises:
        TrainingError: If a loss, a gradient or the outcome's exact figures are not finite.
        InputError: If `data`, `model` or `guide` is not the configuration's.
    """
    if (data.ndims, data.prob) != (config.ndims, config.prob):
        raise InputError(f"data has ndims {data.ndims} and prob {data.prob}; the configuration has {config}")
    for what, given, expected in (("model", model, MODELS[config.layers]), ("guide", guide, GUIDES[str(config.guide)])):
        if not isinstance(given, expected):
            raise InputError(f"{what} is a {type(given).__name__}; the configuration has {expected.__name__}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', and torch finds none here; take 'cpu'")
    run = Run(model, guide, data, config, history={}, seconds=0.0)
    check_guide(str(config.guide), guide, data.codewords, config.layers)
    with _isolated(config):
        training = _Training(run, quiet, on_step, progress)
        try:
            training.first()
            if _is_worse_than_no_latent(run):
                training.again()
        except ArithmeticError as error:
            failure = TrainingError(f"{error}; the last parameters before it are kept")
            failure.run = run
            raise failure from None
    return run


def _is_worse_than_no_latent(run: Run) -> bool:
    """Whether a run that was started with its bit in the latent would do better without one.

    A decoder that ignores z, and a guide that is the prior, cost ndims times the entropy.
    """
    planted = isinstance(run.model, Program) and run.config.recipe.arch.start != PLAIN
    return planted and run.metrics["loss"] >= run.data.ndims * run.data.entropy


def _on_lattice(run: Run, particles: int) -> tuple[Any, LatticeNoise]:
    """The run's objective with so many particles, and the noise to evaluate it under."""
    noise = LatticeNoise(particles, run.data.probs, run.config.recipe.noise_width)
    return make_objective(str(run.config.objective), particles), noise


def _estimator(run: Run) -> tuple[CompiledELBO | EagerELBO, Tensor, int]:
    """What estimates the loss and sets its gradient, the rows x that it takes, and what its loss is divided by."""
    recipe, model, guide = run.config.recipe, run.model, run.guide
    parameters = [*model.parameters(), *guide.parameters()]
    # A gradient by the score has no use for noise that is given, and none for weights.
    if recipe.particles and is_reparameterised(guide, run.data.codewords):
        # The two codewords, each with its probability: the loss is per datum already.
        x = run.data.codewords
        seen = recipe.seen(run.data.ndims)
        elbo, noise = _on_lattice(run, seen)
        unseen = _on_lattice(run, recipe.particles - seen) if seen < recipe.particles else None
        try:
            return CompiledELBO(elbo, model, guide, x, recipe.clip, noise, unseen), x, 1
        except NotCompilableError:
            return EagerELBO(elbo, parameters, recipe.clip, noise), x, 1
    x = run.data.rows(recipe.rows)
    elbo = make_objective(str(run.config.objective), recipe.samples)
    if is_mean(str(run.config.objective)):
        with suppress(NotCompilableError):
            return CompiledELBO(elbo, model, guide, x, recipe.clip), x, recipe.rows
    return EagerELBO(elbo, parameters, recipe.clip), x, recipe.rows


class _Training:
    """A run's attempts at training, from the beginning or from where they were left."""

    def __init__(self, run: Run, quiet: bool, on_step: Callable[[int], None] | None, progress: Progress | None) -> None:
        self.run, self.quiet, self.on_step, self.progress = run, quiet, on_step, progress
        self.programs: dict[str, Any] = {"model": run.model, "guide": run.guide}
        #: The first attempt's outcome, while there is a second.
        self.planted: dict[str, Any] | None = None
        self.left = progress.restore() if progress else None
        if progress and self.left:
            with progress.taken_up():
                run.history = {name: list(map(float, values)) for name, values in self.left["history"].items()}
                if len(set(map(len, run.history.values()))) > 1:
                    raise ValueError
                run.seconds, self.planted = float(self.left["seconds"]), self.left["planted"]

    @property
    def _on_gpu(self) -> bool:
        return self.run.config.device == "cuda"

    def first(self) -> None:
        """Train from the recipe's start, and judge."""
        if self.planted is None:
            self._train(0)
            self.run.judge()
        else:
            self.run.metrics = {"loss": self.planted["loss"]}

    def again(self) -> None:
        """Train from the start in which the latents carry nothing; keep the better outcome."""
        if self.planted is None:
            self.planted = {**copy.deepcopy(self._states()), "loss": self.run.metrics["loss"]}
            for program in self.programs.values():
                program.begin(PLAIN, self.run.data.prob)
        try:
            self._train(1)
            better = self.run.judge()["loss"] <= self.planted["loss"]
        except ArithmeticError:
            better = False
        if not better:
            self._load(self.planted)
            self.run.judge()

    def _states(self) -> dict[str, Any]:
        return {name: program.state_dict() for name, program in self.programs.items()}

    def _load(self, states: dict[str, Any]) -> None:
        for name, program in self.programs.items():
            program.load_state_dict(states[name])

    def _train(self, attempt: int) -> None:
        programs, device = self.programs.values(), torch.device(self.run.config.device)
        try:
            for program in programs:
                program.to(device)
            with device:
                self._steps(attempt)
        finally:
            for program in programs:
                program.cpu()

    def _steps(self, attempt: int) -> None:
        start = time.perf_counter()
        run, recipe = self.run, self.run.config.recipe
        run.guide.train()
        estimator, x, rows = _estimator(run)
        optimizer = OneOptimizer([*run.model.parameters(), *run.guide.parameters()], recipe)
        svi = SVI(run.model, run.guide, optimizer, estimator, loss_and_grads=estimator)
        stride = -(-recipe.steps // _HISTORY_ROWS)
        begin, spent = self._resume(optimizer), run.seconds
        steps: Iterable[int] = range(begin, recipe.steps)
        # A bar that is not shown would still make a semaphore, and a killed process leave it behind.
        if not self.quiet:
            steps = tqdm(steps, initial=begin, total=recipe.steps, disable=None, leave=False, unit="step")
        try:
            for step in steps:
                lr = optimizer.lr
                loss = svi.step(x)
                if step % stride == 0:
                    terms = {name: value / rows for name, value in estimator.terms.items()}
                    row = {"attempt": attempt, "step": step, "loss": loss / rows, **terms, "lr": lr}
                    for name, value in row.items():
                        run.history.setdefault(name, []).append(value)
                if self.on_step is not None:
                    self.on_step(step)
                if self.progress is not None and (self.progress.due() or step + 1 == recipe.steps):
                    run.seconds = spent + time.perf_counter() - start
                    self._keep(step + 1, optimizer)
        except ArithmeticError as error:
            raise ArithmeticError(f"step {step}: {error}") from None
        finally:
            run.guide.eval()
            run.seconds = spent + time.perf_counter() - start

    def _keep(self, step: int, optimizer: OneOptimizer) -> None:
        assert self.progress is not None
        state = {
            "step": step,
            "seconds": self.run.seconds,
            "history": self.run.history,
            "planted": self.planted,
            "optimizers": [one.state_dict() for one in optimizer.optimizers],
            "generators": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if self._on_gpu else [])],
            **self._states(),
        }
        self.progress.keep(state)

    def _resume(self, optimizer: OneOptimizer) -> int:
        """Take up the state that was left, once; the step to begin with."""
        state, self.left = self.left, None
        if self.progress is None or state is None:
            return 0
        with self.progress.taken_up():
            self._load(state)
            for one, own in zip(optimizer.optimizers, state["optimizers"], strict=True):
                one.load_state_dict(own)
            own, *of_gpus = state["generators"]
            torch.set_rng_state(own)
            if self._on_gpu:
                torch.cuda.set_rng_state_all(of_gpus)
            return int(state["step"])
