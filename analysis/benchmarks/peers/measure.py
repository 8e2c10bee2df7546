"""What is timed: one contender in one cell, by the functions at the end, each for a process of its own.

Nothing slow is imported at the top: NumPyro's processes need no torch, and the clock of a whole study counts what
its processes import.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import re
import resource
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import CHUNKS, Work

if TYPE_CHECKING:
    from pyro_onebit import Config, Guide, Model, OneBitData
    from pyro_onebit.settings import StartName

Row = dict[str, Any]

#: The package's contenders and their presets.
PRESETS = {"package": "default", "reference": "reference"}
#: The others and their modules.
PEERS = {"pyro": "peers.plain_pyro", "numpyro": "peers.numpyro_scan", "torch": "peers.hand_torch"}
CONTENDERS = [*PRESETS, *PEERS]
#: A run has arrived when its exact loss is this close to the optimum, nats.
MARGIN = 0.02


def work_of(contender: str, layers: int, ndims: int, seed: int, steps: int | None, threads: int = 1) -> Work:
    """What to train in a cell, with the contender's own number of steps if none is given."""
    from pyro_onebit import Config
    from pyro_onebit.nn import MIN_VARIANCE

    own = Config(ndims=ndims, layers=layers, preset=PRESETS.get(contender, "reference")).recipe
    recipe = Config(ndims=ndims, layers=layers, preset="reference").recipe
    steps = CHUNKS * math.ceil((steps or own.steps) / CHUNKS)
    hidden_x, hidden_z = ([width] * recipe.arch.hidden_layers for width in (recipe.arch.width_x, recipe.arch.width_z))
    sizes = {"q_z1": [ndims, *hidden_x, 2], "p_x": [1, *hidden_x, ndims]}
    if layers == 2:
        sizes |= {"q_z2": [1, *hidden_z, 2], "p_z1": [1, *hidden_z, 2]}
    decay = (recipe.lr_final / recipe.lr) ** (1.0 / steps)
    return Work(contender, layers, ndims, seed, threads, steps, recipe.rows, recipe.lr, decay, sizes, MIN_VARIANCE)


def built(work: Work, start: StartName = "random") -> tuple[Config, Model, Guide, OneBitData]:
    """The package's model, guide and codewords of a run; a peer's are the reference preset's."""
    from pyro_onebit.training import Config, build

    preset = PRESETS.get(work.contender, "reference")
    config = Config(ndims=work.ndims, layers=work.layers, seed=work.seed, preset=preset, steps=work.steps, start=start)
    return config, *build(config)


def limit_threads(threads: int) -> None:
    """Let torch, BLAS and XLA, none of which may have been imported yet, use so many threads, and the CPU."""
    # NPROC is what XLA takes for the number of cores.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    os.environ.update(dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": "cpu"})


@dataclass
class Recorder:
    """Called after each chunk of steps: notes time and memory, and keeps the parameters.

    Unless `keep` is false: twenty copies would show in a measurement of memory.
    """

    keep: bool = True
    start: float = field(default_factory=time.perf_counter)
    seconds: list[float] = field(default_factory=list)
    snapshots: list[Any] = field(default_factory=list)
    peak_mb: float = math.nan

    def __call__(self, snapshot: Any) -> None:
        """Note a chunk."""
        self.seconds.append(time.perf_counter() - self.start)
        if self.keep:
            self.snapshots.append(snapshot)
        self.peak_mb = peak_memory_mb()

    def ms_per_step(self, work: Work) -> float:
        """Median over the chunks but the first, in which compiled contenders compile."""
        chunks = [after - before for before, after in itertools.pairwise(self.seconds)]
        return 1e3 * statistics.median(chunks or [math.inf]) / (work.steps // CHUNKS)


def preload(contender: str) -> None:
    """Import everything a contender imports, also what it would import while training."""
    if contender == "numpyro":
        import jax

        jax.devices()  # starts the backend
    else:
        # torch imports this with the first optimizer: seconds, which are not training.
        importlib.import_module("torch._dynamo")
    importlib.import_module(PEERS.get(contender, "pyro_onebit.training"))


def train(work: Work, recorder: Recorder) -> tuple[float, list[float]]:
    """Train once: seconds, and losses as the contender itself estimates them (a peer's are chunks' means)."""
    if work.contender in PRESETS:
        return train_package(work, recorder)
    recorder.start = time.perf_counter()
    losses = []
    for snapshot, loss in importlib.import_module(PEERS[work.contender]).train(work):
        losses.append(loss)
        recorder(snapshot)
    return time.perf_counter() - recorder.start, losses


def train_package(work: Work, recorder: Recorder, start: StartName = "random") -> tuple[float, list[float]]:
    """The package's own `fit`."""
    recorder.start = time.perf_counter()
    from pyro_onebit.errors import TrainingError
    from pyro_onebit.training import fit

    config, model, guide, data = built(work, start)

    def snapshot() -> list[dict[str, Any]]:
        return [{name: value.clone() for name, value in module.state_dict().items()} for module in (model, guide)]

    def on_step(index: int) -> None:
        if (index + 1) % (work.steps // CHUNKS) == 0:
            recorder(snapshot() if recorder.keep else None)

    build_seconds = time.perf_counter() - recorder.start
    try:
        run = fit(model, guide, data, config, on_step=on_step)
    except TrainingError as error:
        # It may be only the judgement that is not to be had, as for networks that have hardly been trained.
        run = error.run
    seconds = build_seconds + run.seconds
    if recorder.keep:
        # What follows the last step (a second attempt may be given up for the first) belongs to what is delivered.
        recorder.seconds[-1:], recorder.snapshots[-1:] = [seconds], [snapshot()]
    return seconds, run.history.get("loss") or [math.inf]


def judge(work: Work, snapshot: Any) -> float:
    """The exact loss of a snapshot, nats per datum; infinite if there is none."""
    import numpy as np
    import torch

    from pyro_onebit.exact import evaluate

    _, model, guide, data = built(work)
    if work.contender in PRESETS:
        for module, parameters in zip((model, guide), snapshot, strict=True):
            module.load_state_dict(parameters)
    else:
        for name, values in snapshot.items():
            net = getattr(model if name.startswith("p_") else guide, name).net
            tensors = [torch.tensor(np.asarray(value)) for value in values]
            net.load_state_dict(dict(zip(net.state_dict(), tensors, strict=True)))
    try:
        loss = evaluate(model, guide, data)["loss"]
    except ArithmeticError:
        return math.inf
    # In the middle of a training it may not be known.
    return math.inf if loss is None else float(loss)


def peak_memory_mb() -> float:
    """The most memory this process has held; on Linux `getrusage` would begin with the parent's peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
    return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0]) / 2**10


def time_cell(work: Work) -> Row:
    """Times, and the exact losses of the run's snapshots."""
    preload(work.contender)
    recorder = Recorder()
    seconds, own = train(work, recorder)
    # Only now: NumPyro's clock has stopped, and what follows needs torch.
    from pyro_onebit.data import OneBitData
    from pyro_onebit.exact import optimum

    best = optimum(work.ndims) if work.layers == 1 else OneBitData(work.ndims).entropy
    # A run that trains again, for it saw itself fail, makes more steps than asked for.
    steps, ms = len(recorder.seconds) * work.steps // CHUNKS, recorder.ms_per_step(work)
    times = {"steps": steps, "seconds": seconds, "ms_per_step": ms, "start_seconds": seconds - 1e-3 * ms * steps}
    losses = (judge(work, snapshot) for snapshot in reversed(recorder.snapshots))
    loss, own_loss = next(losses), statistics.fmean(own[-len(own) // CHUNKS :])
    # Backwards, to the moment from which on the run stays; one that never arrives costs one judgement.
    inside = itertools.takewhile(lambda exact: exact <= best + MARGIN, itertools.chain([loss], losses))
    reached = min((after for after, _ in zip(reversed(recorder.seconds), inside, strict=False)), default=math.inf)
    reach = {"loss": loss, "excess": loss - best, "own_loss": own_loss, "reached_s": reached}
    return times | reach | {"peak_mb": recorder.peak_mb}


def time_run(work: Work) -> Row:
    """One run of a study, with whatever the contender itself does besides training."""
    seconds, _ = train(work, Recorder(keep=False))
    return {"pid": os.getpid(), "training_s": seconds, "peak_mb": peak_memory_mb()}


def time_growth(work: Work) -> Row:
    """Time, and peak memory after imports, training and judging."""
    preload(work.contender)
    recorder, before, start = Recorder(keep=False), peak_memory_mb(), time.perf_counter()
    seconds, _ = train(work, recorder)
    judging = time.perf_counter() - start - seconds
    steps = {"finished": len(recorder.seconds) >= CHUNKS, "ms_per_step": recorder.ms_per_step(work)}
    peaks = {"import_mb": before, "peak_mb": recorder.peak_mb, "peak_judged_mb": peak_memory_mb()}
    return steps | peaks | {"judging_s": judging}


def time_step(work: Work) -> Row:
    """Time of the default preset's step on the whole programs, and its first loss: the package's, or by ``torch``."""
    preload("package")
    recorder = Recorder(keep=False)
    if work.contender == "package":
        _, losses = train_package(work, recorder, "analytic")
    else:
        import torch

        from peers.hand_torch import default_step, in_chunks

        config, *parts = built(replace(work, contender="package"), "analytic")
        torch.manual_seed(work.seed)
        step = default_step(*parts, config.recipe)
        losses = [step()]
        for snapshot, _ in in_chunks(work, torch.nn.ModuleDict(), step):
            recorder(snapshot)
    return {"ms_per_step": recorder.ms_per_step(work), "first_loss": losses[0]}
