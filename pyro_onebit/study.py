"""A study: a grid of runs, and the table they fill."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pyro_onebit.config import Config
from pyro_onebit.exact import Truth
from pyro_onebit.files import check_writable
from pyro_onebit.runs import (
    COLUMNS,
    is_finished,
    load_run,
    read_metrics,
    run_name,
    run_path,
    train,
    write_table,
)
from pyro_onebit.workers import check_jobs, spread

__all__ = ["ORIGINAL", "Study", "missing", "run_study", "write_failures"]

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


#: Seconds after which the table is written again, while a study runs.
_RENEWAL = 30.0


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


def missing(configs: Iterable[Config], out: Path) -> list[Config]:
    """The configurations whose runs are not finished in a study's directory."""
    return [config for config in configs if not is_finished(run_path(out, config))]


def run_study(
    configs: Iterable[Config], out: Path, jobs: int, *, quiet: bool = True, cluster: str | None = None
) -> Study:
    """Train every configuration whose run is not there yet, and write the table ``out/results.csv``.

    Each run is kept under ``out/runs`` as soon as it is finished, and its state while it is trained; so the same call
    goes on where an earlier one was stopped. Runs that failed are tried again. Their reasons are in
    ``out/failures.csv``. The table is written every half minute, and however the call ends.

    Arguments:
        configs: The grid.
        out: The study's directory.
        jobs: Processes, each with one thread; a run's result does not depend on it.
        quiet: Show no progress bar.
        cluster: Address of a Dask scheduler whose workers see the same files; then `jobs` is of no account.

    Raises:
        InputError: If `jobs` is below 1, `out` cannot be written, or holds another configuration's run.
    """
    configs = list(configs)
    check_jobs(jobs)
    check_writable(out)
    failures: dict[int, str] = {}
    first: dict[tuple[int, int], tuple[int, Truth | None]] = {}
    written = time.monotonic()
    try:
        for i, result in spread(_train_one, configs, out, jobs, quiet=quiet, cluster=cluster):
            cell = (configs[i].layers, configs[i].ndims)
            if isinstance(result, str):
                failures[i] = result
            # Of all others the densities go at once: a study may have thousands of runs.
            elif i <= first.get(cell, (i, None))[0]:
                first[cell] = (i, result)
            if time.monotonic() - written > _RENEWAL:
                _write_results(configs, out)
                written = time.monotonic()
    finally:
        failed = {configs[i]: reason for i, reason in sorted(failures.items())}
        rows = _write_results(configs, out)
        write_failures(failed, out)
    truths = {}
    for i, truth in sorted(first.values(), key=itemgetter(0)):
        path = run_path(out, configs[i])
        truths[path.name] = truth if truth is not None else load_run(path).judge().truth
    return Study(rows, {run_name(config): reason for config, reason in failed.items()}, truths)


def _write_results(configs: Iterable[Config], out: Path) -> list[dict[str, Any]]:
    """Write ``results.csv`` of the runs that are finished, whoever trained them, and when; its rows."""
    paths = {config: run_path(out, config) for config in configs}
    rows = [read_metrics(path / "metrics.json", config) for config, path in paths.items() if is_finished(path)]
    write_table(out / "results.csv", COLUMNS, rows)
    return rows


#: The columns of ``failures.csv``.
FAILURE_COLUMNS = ("ndims", "prob", "layers", "guide", "objective", "seed", "run", "reason")


def write_failures(failures: Mapping[Config, str], out: Path) -> None:
    """Write ``failures.csv``, a row a run that failed; if none did, there is no such file."""
    path = out / "failures.csv"
    if failures:
        rows = [{**asdict(config), "run": run_name(config), "reason": why} for config, why in failures.items()]
        write_table(path, FAILURE_COLUMNS, rows)
    else:
        path.unlink(missing_ok=True)


def _train_one(config: Config, path: Path) -> Truth | None:
    """One run in a worker; its densities if they are at hand."""
    return train(config, path).truth
