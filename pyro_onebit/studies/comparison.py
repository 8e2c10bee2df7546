"""Guides and objectives side by side: what each costs, and which part of its gap is whose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from pyro_onebit.bounds import log_weights
from pyro_onebit.diagnostics import gap_split, ideal_gap, khat
from pyro_onebit.exact import Truth, finite, solve_joint
from pyro_onebit.files import write_table
from pyro_onebit.studies.executors import check_jobs, run_all
from pyro_onebit.studies.grid import run_name, run_path
from pyro_onebit.studies.runs import save_run, train
from pyro_onebit.studies.schema import to_table
from pyro_onebit.studies.study import Study, cell_of, claim_tables, write_failures
from pyro_onebit.training import AnyConfig, Config, Run

#: Draws per codeword, to which k̂ is fitted.
_DRAWS = 10_000


def compare(
    configs: Iterable[Config],
    out: str | Path,
    jobs: int,
    *,
    quiet: bool = True,
    timeout: float | None = None,
    cluster: str | None = None,
) -> Study:
    """Train what is not there yet, judge each run and write ``out/comparison.csv``.

    Runs are kept under ``out/runs`` as a study's are. Arguments and errors: as for `run_study`.
    """
    # As a reader compares: guides and objectives at one number of dimensions.
    configs, out = sorted(configs, key=attrgetter("ndims")), Path(out)
    check_jobs(jobs, len(configs), timeout, cluster)
    claim_tables(out, "comparison")
    results = dict(run_all(_compare_one, configs, out, jobs, quiet=quiet, timeout=timeout, cluster=cluster))
    failures = {config: results[i] for i, config in enumerate(configs) if isinstance(results[i], str)}
    done = [(config, *results[i]) for i, config in enumerate(configs) if config not in failures]
    return _tabulate(done, out, failures)


def compare_runs(runs: Iterable[Run], out: str | Path) -> Study:
    """Hold runs side by side, however each was trained; keep them under ``out/runs``, write ``out/comparison.csv``.

    Arguments:
        runs: The runs; two that are called the same (`run_name`) are one.
        out: The comparison's directory.

    Raises:
        InputError: If `out` cannot be written.
    """
    out, done = Path(out), []
    claim_tables(out, "comparison")
    for run in sorted({run_name(run.config): run for run in runs}.values(), key=lambda run: run.data.ndims):
        done.append((run.config, *_judged(run)))
        save_run(run, run_path(out, run.config))
    return _tabulate(done, out, {})


def _tabulate(
    done: Iterable[tuple[AnyConfig, dict[str, Any], Truth]], out: Path, failures: Mapping[Config, str]
) -> Study:
    """Write ``comparison.csv``, and ``failures.csv`` if there are any."""
    rows: list[dict[str, Any]] = []
    truths: dict[tuple[object, ...], tuple[AnyConfig, Truth]] = {}
    for config, row, truth in done:
        rows.append(row)
        truths.setdefault(cell_of(config), (config, truth))
    table = to_table(rows, "comparison")
    write_table(out / "comparison.csv", table)
    return Study(table, write_failures(failures, out), list(truths.values()))


def _compare_one(config: Config, path: Path, on_step: Callable[[int], None] | None) -> tuple[dict[str, Any], Truth]:
    """One run in a worker."""
    return _judged(train(config, path, on_step=on_step))


def _judged(run: Run) -> tuple[dict[str, Any], Truth]:
    """Its row and densities."""
    truth = run.truth or run.judge().truth
    return comparison_row(run, truth), truth


def comparison_row(run: Run, truth: Truth) -> dict[str, Any]:
    """A judged run's row of ``comparison.csv``.

    Arguments:
        run: The run.
        truth: Its ``exact.solve(run.model, run.guide, run.data)``.

    Returns:
        The columns of `schema.COLUMNS` that stand in a comparison. None: infinite, or not defined.
    """
    figures, data = run.metrics, run.data
    joint = solve_joint(run.model, run.guide, data, truth)
    split = gap_split(run.model, run.guide, data, truth, joint)
    ideal = ideal_gap(run.guide, data, truth)
    mean = lambda per_codeword: finite(truth.probs @ per_codeword)  # noqa: E731
    approximation = mean(split.approximation)
    draws = log_weights(run.model, run.guide, data, _DRAWS, seed=run.config.seed or 0)
    return {
        **figures,
        "gap_nats": figures["loss"] - figures["entropy"],
        "gap_bits": (figures["loss"] - figures["entropy"]) / math.log(2.0),
        "kl_forward": mean(joint.kl_forward),
        "kl_reverse": mean(joint.kl_reverse),
        "amortisation": mean(split.amortisation),
        "approximation": approximation,
        "ideal_gap": ideal,
        "bent": None if ideal is None or approximation is None else ideal - approximation,
        "wasserstein": mean(truth.distances(truth.log_truncated)["wasserstein"]),
        "khat": finite(khat(draws).max()),
        "parameters": sum(p.numel() for p in run.guide.parameters()),
    }
