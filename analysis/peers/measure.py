"""What is timed: one contender in one cell, each function for a process of its own.

Nothing slow is imported at the top: NumPyro's processes need no torch, and the clock of a whole study
counts what its processes import.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import Work

__all__ = [
    "CHUNKS",
    "CONTENDERS",
    "MARGIN",
    "PEERS",
    "PRESETS",
    "Row",
    "measure",
    "measure_growth",
    "measure_step",
    "train_only",
    "work_of",
]

Row = dict[str, Any]

#: The package's contenders and their presets.
PRESETS = {"package": "default", "reference": "reference"}
#: The others and their modules.
PEERS = {"pyro": "peers.plain_pyro", "numpyro": "peers.numpyro_scan", "torch": "peers.hand_torch"}
CONTENDERS = [*PRESETS, *PEERS]
#: Snapshots of a run's parameters, evenly spaced over its steps.
CHUNKS = 20
#: A run has arrived when its exact loss is this close to the optimum, nats.
MARGIN = 0.02


def work_of(contender: str, ndims: int, layers: int, seed: int, steps: int | None) -> Work:
    """The reference settings for a peer; for the package its own number of steps."""
    from pyro_onebit.config import Config
    from pyro_onebit.networks import MIN_VARIANCE

    preset: Any = PRESETS.get(contender, "reference")
    reference = Config(ndims=ndims, layers=layers, preset="reference").recipe
    steps = steps or Config(ndims=ndims, layers=layers, preset=preset).recipe.steps
    return Work(
        ndims=ndims,
        layers=layers,
        seed=seed,
        steps=CHUNKS * math.ceil(steps / CHUNKS),
        rows=reference.rows,
        lr=reference.lr,
        lr_final=reference.lr_final,
        width_x=reference.arch.width_x,
        width_z=reference.arch.width_z,
        hidden_layers=reference.arch.hidden_layers,
        min_variance=MIN_VARIANCE,
        chunks=CHUNKS,
    )


@dataclass
class Recorder:
    """Called after each chunk of steps: notes the time and keeps the parameters.

    Arguments:
        keep: Whether to keep the parameters; twenty copies would show in a measurement of memory.
    """

    keep: bool = True
    start: float = field(default_factory=time.perf_counter)
    seconds: list[float] = field(default_factory=list)
    snapshots: list[Any] = field(default_factory=list)
    loss: float = math.nan
    peak_mb: float = math.nan

    def __call__(self, snapshot: Any, loss: float) -> None:
        """Note a chunk."""
        self.seconds.append(time.perf_counter() - self.start)
        self.loss = loss
        if self.keep:
            self.snapshots.append(snapshot)
        self.peak_mb = peak_memory_mb()

    def ms_per_step(self, steps: int) -> float:
        """Median over the chunks but the first, in which compiled contenders compile."""
        chunks = [after - before for before, after in itertools.pairwise(self.seconds)]
        return 1e3 * statistics.median(chunks or [math.inf]) / (steps / CHUNKS)


def preload(contender: str) -> None:
    """Import everything a contender imports, also what it would import while training."""
    if contender == "numpyro":
        import jax

        jax.devices()  # starts the backend
    else:
        # torch imports this with the first optimizer: seconds, which are not training.
        importlib.import_module("torch._dynamo")
    if contender in PEERS:
        importlib.import_module(PEERS[contender])
    else:
        importlib.import_module("pyro_onebit.training")


def train(contender: str, work: Work, recorder: Recorder) -> Row:
    """Train once: seconds, and the mean of the last chunk's losses as the contender itself estimates them."""
    recorder.start = time.perf_counter()
    if contender in PEERS:
        importlib.import_module(PEERS[contender]).train(work, recorder)
        return {"seconds": time.perf_counter() - recorder.start, "own_loss": recorder.loss}
    return train_package(PRESETS[contender], work, recorder)


def train_package(preset: Any, work: Work, recorder: Recorder) -> Row:
    """The package's own `fit`; also all its losses."""
    from pyro_onebit.config import Config
    from pyro_onebit.training import TrainingError, build, fit

    config = Config(ndims=work.ndims, layers=work.layers, seed=work.seed, preset=preset, steps=work.steps)
    model, guide, data = build(config)
    every = work.steps // CHUNKS

    def snapshot() -> list[dict[str, Any]]:
        return [{name: value.clone() for name, value in module.state_dict().items()} for module in (model, guide)]

    def on_step(index: int) -> None:
        if (index + 1) % every == 0:
            recorder(snapshot() if recorder.keep else None, math.nan)

    build_seconds = time.perf_counter() - recorder.start
    try:
        run = fit(model, guide, data, config, on_step=on_step)
    except TrainingError as error:
        run = error.run
    except ArithmeticError:
        # Training is done; only its judgement is not to be had, as for networks that have hardly been trained.
        return {"seconds": recorder.seconds[-1], "own_loss": math.inf, "losses": []}
    seconds = build_seconds + run.seconds
    if recorder.keep:
        # What follows the last step (a finish, an average) belongs to what is delivered.
        recorder.seconds[-1:], recorder.snapshots[-1:] = [seconds], [snapshot()]
    losses = run.history.get("loss") or [math.inf]
    return {"seconds": seconds, "own_loss": statistics.fmean(losses[-(len(losses) // CHUNKS + 1) :]), "losses": losses}


def judge(contender: str, work: Work, snapshot: Any) -> float:
    """The exact loss of a snapshot, nats per datum; infinite if there is none."""
    import numpy as np
    import torch

    from pyro_onebit.config import Config
    from pyro_onebit.exact import evaluate
    from pyro_onebit.training import build

    preset: Any = PRESETS.get(contender, "reference")
    model, guide, data = build(Config(ndims=work.ndims, layers=work.layers, preset=preset))
    if contender in PEERS:
        for name, net in importlib.import_module(PEERS[contender]).layers(snapshot).items():
            parameters = {
                f"layers.{i}.{kind}": torch.from_numpy(np.array(value))
                for i, layer in enumerate(net)
                for kind, value in zip(("weight", "bias"), layer, strict=True)
            }
            getattr(model if name.startswith("p_") else guide, name).net.load_state_dict(parameters)
    else:
        for module, parameters in zip((model, guide), snapshot, strict=True):
            module.load_state_dict(parameters)
    try:
        return float(evaluate(model, guide, data)["loss"])
    except ArithmeticError:
        return math.inf


def measure(contender: str, work: Work) -> Row:
    """One contender in one cell: times, and the exact losses of its snapshots. For a fresh process."""
    preload(contender)
    recorder = Recorder()
    trained = train(contender, work, recorder)
    # Only now: NumPyro's clock has stopped, and what follows needs torch.
    from pyro_onebit.data import OneBitData
    from pyro_onebit.optimum import optimum

    best = optimum(work.ndims) if work.layers == 1 else OneBitData(work.ndims).entropy
    ms = recorder.ms_per_step(work.steps)
    # A run that trains again, for it saw itself fail, makes more steps than asked for.
    steps = len(recorder.seconds) * work.steps // CHUNKS
    losses = (judge(contender, work, snapshot) for snapshot in reversed(recorder.snapshots))
    loss = next(losses)
    # Backwards, to the moment from which on the run stays; one that never arrives costs one judgement.
    inside = itertools.takewhile(lambda exact: exact <= best + MARGIN, itertools.chain([loss], losses))
    reached = [seconds for seconds, _ in zip(reversed(recorder.seconds), inside, strict=False)]
    return {
        "contender": contender,
        "layers": work.layers,
        "ndims": work.ndims,
        "seed": work.seed,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "steps": steps,
        "seconds": trained["seconds"],
        "ms_per_step": ms,
        "start_seconds": trained["seconds"] - 1e-3 * ms * steps,
        "loss": loss,
        "excess": loss - best,
        "own_loss": trained["own_loss"],
        "reached_s": min(reached, default=math.inf),
        "peak_mb": recorder.peak_mb,
    }


def train_only(contender: str, work: Work) -> Row:
    """One run of a study, with whatever the contender itself does besides training."""
    result = train(contender, work, Recorder(keep=False))
    return {"pid": os.getpid(), "training_seconds": result["seconds"], "peak_mb": peak_memory_mb()}


def measure_growth(work: Work) -> Row:
    """A few steps of the default preset: time, and peak memory after imports, training and judging."""
    preload("package")
    recorder = Recorder(keep=False)
    before = peak_memory_mb()
    start = time.perf_counter()
    seconds = train("package", work, recorder)["seconds"]
    return {
        "layers": work.layers,
        "ndims": work.ndims,
        "steps": work.steps,
        "finished": len(recorder.seconds) >= CHUNKS,
        "ms_per_step": recorder.ms_per_step(work.steps),
        "import_mb": before,
        "peak_mb": recorder.peak_mb,
        "peak_judged_mb": peak_memory_mb(),
        "judging_s": time.perf_counter() - start - seconds,
    }


def measure_step(contender: str, work: Work) -> Row:
    """Milliseconds of the default preset's step, and its first loss: the package's, or by hand (``torch``)."""
    preload("package")
    recorder = Recorder(keep=False)
    losses = (
        train_by_hand(work, recorder) if contender == "torch" else train_package("default", work, recorder)["losses"]
    )
    return {"ms_per_step": recorder.ms_per_step(work.steps), "first_loss": losses[0]}


def train_by_hand(work: Work, recorder: Recorder) -> list[float]:
    """The default preset by hand: the losses."""
    import torch

    from peers import hand_torch
    from pyro_onebit.config import Config
    from pyro_onebit.training import build

    recorder.start = time.perf_counter()
    config = Config(ndims=work.ndims, layers=work.layers, seed=work.seed, steps=work.steps)
    model, guide, data = build(config)
    torch.manual_seed(work.seed)
    step = hand_torch.default_step(model, guide, data, config.recipe)
    losses = []
    for index in range(work.steps):
        losses.append(step())
        if (index + 1) % (work.steps // CHUNKS) == 0:
            recorder(None, math.nan)
    return losses


def peak_memory_mb() -> float:
    """The most memory this process has held."""
    with contextlib.suppress(OSError):
        # Linux lets `getrusage` of a new process begin with its parent's peak; this does not.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
