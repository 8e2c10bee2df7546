"""`fit`: stochastic variational inference from a seed to a judged run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_onebit.data import OneBitData
from pyro_onebit.display import progress
from pyro_onebit.errors import InputError, NotCompilableError, ProgramError, TrainingError
from pyro_onebit.guides import Guide
from pyro_onebit.memory import check_memory
from pyro_onebit.models import Model
from pyro_onebit.nn import PLAIN
from pyro_onebit.programs import Pair, Program
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.reproducibility import default_dtype, usual_arithmetic
from pyro_onebit.training.config import DTYPES, Config
from pyro_onebit.training.lattice import LatticeNoise
from pyro_onebit.training.optimizers import OneOptimizer
from pyro_onebit.training.recipes import Recipe
from pyro_onebit.training.run import Checkpoint, Run, build, check_like
from pyro_onebit.training.step import CompiledELBO, EagerELBO

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
    data: OneBitData,
    config: Config,
    *,
    quiet: bool = True,
    on_step: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Train a model and a guide, in place, and judge them exactly.

    A `Run` that holds them already changes with them; for another one, `build` makes new ones.

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
        checkpoint: Where the state is kept; what is there already is gone on from.

    What the caller has set of torch, numpy or Pyro makes no difference, and is as before afterwards. Several threads
    train one after the other, for torch and Pyro have one state in a process: train side by side in processes.

    Raises:
        TrainingError: If a loss, a gradient or the outcome's exact figures are not finite.
        InputError: If `data`, `model` or `guide` is not the configuration's, or a step needs more memory than there is.
    """
    if (data.ndims, data.prob) != (config.ndims, config.prob):
        raise InputError(f"data has ndims {data.ndims} and prob {data.prob}; the configuration has {config}")
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
    _check_step(config)
    run = Run(model, guide, data, config, config.recipe)
    try:
        pair = Pair(model, guide, data)
    except ProgramError as error:
        raise ProgramError(f"guide {config.guide!r}, model {config.model!r}: {error}") from None
    with _isolated(config):
        # The latents that x depends on, and those that the guide draws before.
        wide = 1 + pair.guide.latents.index(pair.latents[0])
        training = _Training(run, config, wide, quiet, on_step, checkpoint)
        try:
            training.first()
            if _is_worse_than_no_latent(run, config):
                training.again()
        except ArithmeticError as error:
            raise TrainingError(f"{error}; the last parameters before it are kept", run) from None
    return run


def _check_step(config: Config) -> None:
    """Refuse a step that would take more memory than there is.

    It holds its logits and the hidden layers' values, and the gradients of both.
    """
    recipe, ndims = config.recipe, config.ndims
    rows, seen = recipe.rows * recipe.samples, recipe.rows * recipe.samples
    if recipe.particles:
        rows, seen = 2 * recipe.particles, 2 * recipe.seen(ndims)
    widths = recipe.arch.width_x + (config.layers - 1) * recipe.arch.width_z
    values = seen * ndims + rows * recipe.arch.hidden_layers * widths
    check_memory(
        2 * DTYPES[config.dtype].itemsize * values,
        f"a step on {rows} draws of the latents, {seen} of them with {ndims} logits each,",
    )


def _shapes(program: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in program.state_dict().items()}


def _is_worse_than_no_latent(run: Run, config: Config) -> bool:
    """Whether a run that was started with its bit in the latent would do better without one.

    A decoder that ignores z, and a guide that is the prior, cost ndims times the entropy.
    """
    planted = config.recipe.arch.start != PLAIN
    return planted and run.metrics["loss"] >= run.data.ndims * run.data.entropy


def _on_lattice(run: Run, config: Config, particles: int, wide: int) -> tuple[Any, LatticeNoise]:
    """The run's objective with so many particles, and the noise to evaluate it under."""
    noise = LatticeNoise(particles, run.data.probs, config.recipe.noise_width, wide)
    return OBJECTIVES[str(config.objective)](particles), noise


def _is_reparameterised(guide: nn.Module, x: Tensor) -> bool:
    """Whether gradients pass through all of a guide's samples."""
    with torch.no_grad():
        sites = Program("guide", guide, x.double()).sites.values()
    return all(site["fn"].has_rsample for site in sites)


def _estimator(run: Run, config: Config, wide: int) -> tuple[CompiledELBO | EagerELBO, Tensor, int]:
    """What estimates the loss and sets its gradient, the rows x that it takes, and what its loss is divided by."""
    recipe, model, guide = config.recipe, run.model, run.guide
    parameters = [*model.parameters(), *guide.parameters()]
    # A gradient by the score has no use for noise that is given, and none for weights.
    if recipe.particles and _is_reparameterised(guide, run.data.codewords):
        # The two codewords, each with its probability: the loss is per datum already.
        x = run.data.codewords
        seen = recipe.seen(run.data.ndims, wide)
        elbo, noise = _on_lattice(run, config, seen, wide)
        unseen = _on_lattice(run, config, recipe.particles - seen, wide) if seen < recipe.particles else None
        try:
            return CompiledELBO(elbo, model, guide, x, recipe.clip, noise, unseen), x, 1
        except NotCompilableError:
            return EagerELBO(elbo, parameters, recipe.clip, noise), x, 1
    x = run.data.rows(recipe.rows)
    objective = OBJECTIVES[str(config.objective)]
    elbo = objective(recipe.samples)
    if objective.recorded:
        with suppress(NotCompilableError):
            return CompiledELBO(elbo, model, guide, x, recipe.clip), x, recipe.rows
    return EagerELBO(elbo, parameters, recipe.clip), x, recipe.rows


class _Training:
    """A run's attempts at training, from the beginning or from where they were left."""

    def __init__(
        self,
        run: Run,
        config: Config,
        wide: int,
        quiet: bool,
        on_step: Callable[[int], None] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config = config
        self.run, self.wide, self.quiet, self.on_step, self.checkpoint = run, wide, quiet, on_step, checkpoint
        self.programs: dict[str, Any] = {"model": run.model, "guide": run.guide}
        #: The first attempt's outcome, while there is a second.
        self.planted: dict[str, Any] | None = None
        self.left = checkpoint.restore() if checkpoint else None
        if checkpoint and self.left:
            with checkpoint.restoring():
                self._check(self.left)
            run.history, run.seconds, self.planted = (self.left[name] for name in ("history", "seconds", "planted"))

    def _check(self, left: dict[str, Any]) -> None:
        """Refuse a state that is none of this training; `_resume` does of its optimisers and generators."""
        fresh, recipe, planted = self._states(), self.config.recipe, left["planted"]
        check_like({name: left[name] for name in ("step", "seconds", *fresh)}, {"step": 0, "seconds": 0.0, **fresh})
        if planted is not None:
            check_like(planted, {**fresh, "loss": 0.0})
        if not (1 <= left["step"] <= recipe.steps and left["seconds"] >= 0.0):
            raise ValueError
        whole, part = (range(0, steps, _stride(recipe)) for steps in (recipe.steps, left["step"]))
        rows = [*((0, step) for step in (whole if planted else part)), *((1, step) for step in part if planted)]
        figures = dict(left["history"])
        if list(zip(figures.pop("attempt"), figures.pop("step"), strict=True)) != rows:
            raise ValueError
        check_like(list(figures.values()), [[0.0] * len(rows)] * len(figures))

    @property
    def _on_gpu(self) -> bool:
        return self.config.device == "cuda"

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
                program.reset_parameters(PLAIN, self.run.data.prob)
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
        programs, device = self.programs.values(), torch.device(self.config.device)
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
        run, recipe = self.run, self.config.recipe
        run.guide.train()
        estimator, x, rows = _estimator(run, self.config, self.wide)
        optimizer = OneOptimizer([*run.model.parameters(), *run.guide.parameters()], recipe)
        svi = SVI(run.model, run.guide, optimizer, estimator, loss_and_grads=estimator)
        stride = _stride(recipe)
        begin, spent = self._resume(optimizer, estimator), run.seconds
        steps: Iterable[int] = range(begin, recipe.steps)
        # A bar that is not shown would still make a semaphore, and a killed process leave it behind.
        if not self.quiet:
            steps = progress(steps, quiet=False, initial=begin, total=recipe.steps, leave=False, unit="step")
        try:
            for step in steps:
                lr = optimizer.lr
                estimator.set_step(step, recipe.steps)
                loss = svi.step(x)
                if step % stride == 0:
                    terms = {name: value / rows for name, value in estimator.terms.items()}
                    row = {"attempt": attempt, "step": step, "loss": loss / rows, **terms, "lr": lr}
                    for name, value in row.items():
                        run.history.setdefault(name, []).append(value)
                if self.on_step is not None:
                    self.on_step(step)
                if self.checkpoint is not None and (self.checkpoint.due() or step + 1 == recipe.steps):
                    run.seconds = spent + time.perf_counter() - start
                    self._keep(step + 1, optimizer)
        except ArithmeticError as error:
            raise ArithmeticError(f"step {step}: {error}") from None
        finally:
            run.guide.eval()
            run.seconds = spent + time.perf_counter() - start

    def _keep(self, step: int, optimizer: OneOptimizer) -> None:
        assert self.checkpoint is not None
        state = {
            "step": step,
            "seconds": self.run.seconds,
            "history": self.run.history,
            "planted": self.planted,
            "optimizers": _moments(optimizer),
            "generators": self._generators(),
            **self._states(),
        }
        self.checkpoint.keep(state)

    def _generators(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if self._on_gpu else [])]

    def _resume(self, optimizer: OneOptimizer, estimator: CompiledELBO | EagerELBO) -> int:
        """Take up the state that was left, once; the step to begin with."""
        state, self.left = self.left, None
        if self.checkpoint is None or state is None:
            return 0
        with self.checkpoint.restoring():
            if list(state["history"]) != ["attempt", "step", "loss", *estimator.names, "lr"]:
                raise ValueError
            step = state["step"]
            check_like(state["generators"], self._generators())
            for one, own, fresh in zip(
                optimizer.optimizers, state["optimizers"], _moments(self._stepped()), strict=True
            ):
                # A parameter that has never had a gradient has no moments.
                check_like(own, {name: fresh[name] for name in own})
                for name, moments in own.items():
                    # Not every optimizer counts its steps.
                    if "step" in moments and not 0.0 <= float(moments["step"]) <= float(fresh[name]["step"]) + step - 1:
                        raise ValueError
                groups = one.state_dict()["param_groups"]
                one.load_state_dict({"state": {int(name): own[name] for name in own}, "param_groups": groups})
            for _ in range(step):
                optimizer.decay_lr()
            self._load(state)
            own, *of_gpus = state["generators"]
            torch.set_rng_state(own)
            if self._on_gpu:
                torch.cuda.set_rng_state_all(of_gpus)
            return optimizer.taken

    def _stepped(self) -> OneOptimizer:
        """The optimisers of copies of the parameters, after a step without a gradient."""
        copies = [nn.Parameter(p.detach().clone()) for program in self.programs.values() for p in program.parameters()]
        for p in copies:
            p.grad = torch.zeros_like(p)
        optimizer = OneOptimizer(copies, self.config.recipe)
        optimizer({})
        return optimizer


def _moments(optimizer: OneOptimizer) -> list[dict[str, Any]]:
    """The state of each optimiser, by the number of a parameter; learning rates follow from the step."""
    return [{str(i): own for i, own in one.state_dict()["state"].items()} for one in optimizer.optimizers]


def _stride(recipe: Recipe) -> int:
    """Steps between two rows of a history."""
    return -(-recipe.steps // _HISTORY_ROWS)
