"""A study: a grid of runs, and the table they fill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pyro_onebit.exact import Truth
from pyro_onebit.files import check_writable, claim, remove, table_mark, write_table
from pyro_onebit.studies.executors import check_jobs, run_all
from pyro_onebit.studies.grid import run_name, run_path
from pyro_onebit.studies.runs import is_finished, load_run, read_metrics, train
from pyro_onebit.studies.schema import CELL, Kind, columns_of, to_table
from pyro_onebit.training import AnyConfig, Config, identity_of

#: Seconds after which the table is written again, while a study runs.
_RENEWAL = 30.0
#: What a table of runs is recognised by.
_MARK = table_mark([column.name for column in columns_of("results")])


@dataclass(frozen=True)
class Study:
    """What became of a grid of runs, trained as a study or side by side in a comparison.

    Arguments:
        table: What ``results.csv`` or ``comparison.csv`` holds: a row for each run that succeeded, in the grid's order.
        failures: Name and reason of each run that did not.
        truths: Configuration and densities of the first run that succeeded in each cell (`CELL`).
    """

    table: pd.DataFrame
    failures: dict[str, str]
    truths: list[tuple[AnyConfig, Truth]]


def cell_of(config: AnyConfig) -> tuple[object, ...]:
    """What a run has in common with those that differ from it in the seed alone: its values of `CELL`."""
    own = identity_of(config)
    return tuple(own[name] for name in CELL)


def missing(configs: Iterable[Config], out: str | Path) -> list[Config]:
    """The configurations whose runs are not finished in a study's directory."""
    return [config for config in configs if not is_finished(run_path(out, config))]


def run_study(
    configs: Iterable[Config],
    out: str | Path,
    jobs: int,
    *,
    quiet: bool = True,
    timeout: float | None = None,
    cluster: str | None = None,
) -> Study:
    """Train every configuration whose run is not there yet, and write the table ``out/results.csv``.

    Each run is kept under ``out/runs`` as soon as it is finished, and its state while it is trained; so the same call
    resumes an earlier one that was stopped. Runs that failed are tried again. Their reasons are in
    ``out/failures.csv``. The table is written every half minute, and however the call ends.

    Arguments:
        configs: The grid.
        out: The study's directory.
        jobs: Processes, each with one thread; a run's result does not depend on it.
        quiet: Show no progress bar.
        timeout: Seconds after which a run is given up, and counts as failed; its state is kept.
        cluster: Address of a Dask scheduler whose workers see the same files; then `jobs` is ignored.

    Raises:
        InputError: If `jobs` is below 1, `out` cannot be written, or holds another configuration's run or a table that
            is not ours.
    """
    configs, out = list(configs), Path(out)
    check_jobs(jobs, len(configs), timeout, cluster)
    claim_tables(out, "results")
    failures: dict[int, str] = {}
    first: dict[tuple[object, ...], tuple[int, Truth | None]] = {}
    written = time.monotonic()
    try:
        for i, result in run_all(_train_one, configs, out, jobs, quiet=quiet, timeout=timeout, cluster=cluster):
            cell = cell_of(configs[i])
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
        table = _write_results(configs, out)
        named = write_failures(failed, out)
    found = sorted(first.values(), key=lambda pair: pair[0])
    truths: list[tuple[AnyConfig, Truth]] = [
        (configs[i], truth or load_run(run_path(out, configs[i])).judge().truth) for i, truth in found
    ]
    return Study(table, named, truths)


def _write_results(configs: Iterable[Config], out: Path) -> pd.DataFrame:
    """Write ``results.csv`` of the runs that are finished, whoever trained them, and when."""
    paths = {config: run_path(out, config) for config in configs}
    rows = [read_metrics(path / "metrics.json", config) for config, path in paths.items() if is_finished(path)]
    table = to_table(rows, "results")
    write_table(out / "results.csv", table)
    return table


def claim_tables(out: Path, kind: Kind, *, force: bool = False) -> None:
    """Make a study's directory, and find out whether its tables may be written there.

    Arguments:
        out: The directory.
        kind: What the study's table is.
        force: Remove files that have the tables' names and are not ours.

    Raises:
        InputError: If they may not.
    """
    check_writable(out)
    for name in (kind, "failures"):
        claim(out / f"{name}.csv", _MARK, force=force)


def write_failures(failures: Mapping[Config, str], out: Path) -> dict[str, str]:
    """Write ``failures.csv``, a row for each run that failed; if none did, there is no such file.

    Returns:
        Name and reason of each.
    """
    path = out / "failures.csv"
    if failures:
        rows = [{**identity_of(config), "run": run_name(config), "reason": why} for config, why in failures.items()]
        write_table(path, to_table(rows, "failures"))
    else:
        remove(path, _MARK)
    return {run_name(config): reason for config, reason in failures.items()}


def _train_one(config: Config, path: Path, on_step: Callable[[int], None] | None) -> Truth | None:
    """One run in a worker; its densities if they are at hand."""
    return train(config, path, on_step=on_step).truth
