"""A study: a grid of runs, spread over processes, and the table they fill."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed
from torch import nn
from tqdm import tqdm

from pyro_onebit.config import Config
from pyro_onebit.data import InputError
from pyro_onebit.exact import Truth
from pyro_onebit.files import check_writable
from pyro_onebit.guides import GUIDES
from pyro_onebit.runs import COLUMNS, save_run, write_table
from pyro_onebit.training import Run, TrainingError, build, fit

__all__ = ["ORIGINAL", "Study", "grid", "run_name", "run_study", "spread", "train"]

#: The original experiment's published results: (layers, ndims) to (loss, recon per dimension), nats,
#: Monte Carlo estimates over 10,000 samples of one trained model each (github.com/RuiShu/one-bit-vae).
ORIGINAL = {
    (1, 1): (0.693146, 0.692536),
    (1, 5): (1.066330, 0.0278800),
    (1, 10): (1.140738, 0.00956119),
    (1, 100): (1.426243, 0.00147573),
    (1, 1000): (1.485946, 4.28207e-05),
    (2, 1): (0.693192, 0.693038),
    (2, 5): (0.721471, 0.00195538),
    (2, 10): (0.723806, 9.19815e-05),
    (2, 100): (0.722139, 2.29151e-05),
    (2, 1000): (0.750554, 2.22730e-06),
}


@dataclass(frozen=True)
class Study:
    """What became of a grid of runs.

    Arguments:
        rows: One row of ``results.csv`` a run that succeeded, in the grid's order.
        failures: Name and reason of each run that did not.
        truths: Name and densities of the first run that succeeded in each cell of layers and ndims.
    """

    rows: list[dict[str, Any]]
    failures: dict[str, str]
    truths: dict[str, Truth]


def run_name(config: Config) -> str:
    """The directory of a run within a study: says what the run is, and sorts as a reader would."""
    usual = Config(guide=config.guide, layers=config.layers, objective=config.objective)
    unusual = "".join(
        f"-{value}" if name == "preset" else f"-{name}{value:g}"
        for name in ("prob", "preset", "steps", "lr", "particles")
        if (value := getattr(config, name)) != getattr(usual, name)
    )
    return f"layers{config.layers}-ndims{config.ndims:06d}{unusual}-{config.guide}-{config.objective}-seed{config.seed}"


def run_study(configs: Iterable[Config], out: Path, jobs: int, *, quiet: bool = True) -> Study:
    """Train every configuration, write each run under ``out/runs`` and the table ``out/results.csv``.

    Arguments:
        configs: The grid.
        out: The study's directory.
        jobs: Processes, each with one thread; a run's result does not depend on it.
        quiet: Show no progress bar.

    Raises:
        InputError: If `jobs` is below 1 or `out` cannot be written.
    """
    configs = list(configs)
    check_writable(out)
    results: dict[int, dict[str, Any] | str] = {}
    first: dict[tuple[int, int], tuple[int, Truth]] = {}
    for i, (result, truth) in spread(_train_one, configs, out, jobs, quiet=quiet):
        results[i] = result
        cell = (configs[i].layers, configs[i].ndims)
        # Of all others the densities go at once: a study may have thousands of runs.
        if truth is not None and i <= first.get(cell, (i, truth))[0]:
            first[cell] = (i, truth)
    rows = [result for _, result in sorted(results.items()) if isinstance(result, dict)]
    failures = {run_name(configs[i]): result for i, result in sorted(results.items()) if isinstance(result, str)}
    write_table(out / "results.csv", COLUMNS, rows)
    truths = {run_name(configs[i]): truth for i, truth in sorted(first.values(), key=itemgetter(0))}
    return Study(rows, failures, truths)


T = TypeVar("T")


def spread(
    work: Callable[[Config, Path], T], configs: Sequence[Config], out: Path, jobs: int, *, quiet: bool
) -> Iterator[tuple[int, T]]:
    """Do something for each configuration and the directory of its run, in processes; as they end.

    Arguments:
        work: A function of a module, so that a process can find it.
        configs: The configurations.
        out: The study's directory.
        jobs: Processes, each with one thread.
        quiet: Show no progress bar.

    Returns:
        Index and result of each.

    Raises:
        InputError: If `jobs` is below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")
    # The longest runs first, so that no core is left with one of them at the end.
    order = sorted(range(len(configs)), key=lambda i: (-configs[i].layers, -configs[i].ndims, i))
    results = Parallel(n_jobs=min(jobs, max(1, len(configs))), return_as="generator_unordered")(
        delayed(_in_worker)(GUIDES, work, i, configs[i], out / "runs" / run_name(configs[i])) for i in order
    )
    return iter(tqdm(results, total=len(configs), disable=True if quiet else None, unit="run"))


def _in_worker(
    guides: dict[str, type[nn.Module]], work: Callable[[Config, Path], T], index: int, config: Config, path: Path
) -> tuple[int, T]:
    # Guides that a script has registered are not known in another process.
    for name, guide in guides.items():
        GUIDES.setdefault(name, guide)
    return index, work(config, path)


def _train_one(config: Config, path: Path) -> tuple[dict[str, Any] | str, Truth | None]:
    """One run in a worker: its row and densities, or why it failed."""
    try:
        run = train(config, path)
    except TrainingError as error:
        return str(error), None
    return run.metrics, run.truth


def train(config: Config, path: Path) -> Run:
    """Train a configuration and write its run, also one that fails.

    Raises:
        TrainingError: If training fails.
    """
    try:
        run = fit(*build(config), config)
    except TrainingError as error:
        save_run(error.run, path)
        raise
    save_run(run, path)
    return run


def grid(ndims: Sequence[int], layers: Sequence[int], seeds: Sequence[int], **common: Any) -> Iterator[Config]:
    """The configurations of a study, every combination once.

    Raises:
        InputError: If a value is out of range.
    """
    for n_layers, n, seed in itertools.product(_distinct(layers), _distinct(ndims), _distinct(seeds)):
        yield Config(ndims=n, layers=n_layers, seed=seed, **common)


def _distinct(values: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(values))
