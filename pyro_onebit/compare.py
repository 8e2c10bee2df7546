"""Guides and objectives side by side: what each costs, and which part of its gap is whose."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from pyro_onebit.bounds import log_weights
from pyro_onebit.config import Config
from pyro_onebit.exact import Truth, solve_joint
from pyro_onebit.files import check_writable, finite
from pyro_onebit.gaps import gap_split, ideal_gap
from pyro_onebit.psis import khat
from pyro_onebit.runs import run_name, train, write_table
from pyro_onebit.study import write_failures
from pyro_onebit.training import Run
from pyro_onebit.workers import check_jobs, spread

__all__ = ["COLUMNS", "Comparison", "compare", "comparison_row"]

#: The columns of ``comparison.csv``.
COLUMNS = (
    *("guide", "objective", "layers", "ndims", "prob", "seed", "loss", "entropy", "gap_nats", "gap_bits"),
    *("kl_forward", "kl_reverse", "amortisation", "approximation", "ideal_gap", "bent"),
    *("wasserstein", "khat", "mutual_information", "parameters", "steps", "seconds"),
)
#: Draws a codeword that k̂ is fitted to.
_DRAWS = 10_000


@dataclass(frozen=True)
class Comparison:
    """What became of a comparison.

    Arguments:
        rows: One row of ``comparison.csv`` a run that succeeded, in the grid's order.
        failures: Name and reason of each run that did not.
        truths: Configuration and densities of the first seed's runs.
    """

    rows: list[dict[str, Any]]
    failures: dict[str, str]
    truths: list[tuple[Config, Truth]]


def compare(
    configs: Iterable[Config], out: Path, jobs: int, *, quiet: bool = True, cluster: str | None = None
) -> Comparison:
    """Train what is not there yet, judge each run and write ``out/comparison.csv``.

    Runs are kept under ``out/runs`` as a study's are (`study.run_study`).

    Arguments:
        configs: The grid.
        out: The comparison's directory.
        jobs: Processes, each with one thread.
        quiet: Show no progress bar.
        cluster: Address of a Dask scheduler whose workers see the same files; then `jobs` is of no account.

    Raises:
        InputError: If `jobs` is below 1, `out` cannot be written, or holds another configuration's run.
    """
    # As a reader compares: guides and objectives at one number of dimensions.
    configs = sorted(configs, key=attrgetter("ndims"))
    check_jobs(jobs)
    check_writable(out)
    results = dict(spread(_compare_one, configs, out, jobs, quiet=quiet, cluster=cluster))
    rows: list[dict[str, Any]] = []
    truths: dict[tuple[str | None, str | None, int], tuple[Config, Truth]] = {}
    failures: dict[Config, str] = {}
    for i, config in enumerate(configs):
        result = results[i]
        if isinstance(result, str):
            failures[config] = result
        else:
            row, truth = result
            rows.append(row)
            truths.setdefault((config.guide, config.objective, config.ndims), (config, truth))
    write_table(out / "comparison.csv", COLUMNS, rows)
    write_failures(failures, out)
    return Comparison(rows, {run_name(c): reason for c, reason in failures.items()}, list(truths.values()))


def _compare_one(config: Config, path: Path) -> tuple[dict[str, Any], Truth]:
    """One run in a worker: its row and densities."""
    run = train(config, path)
    truth = run.truth or run.judge().truth
    return comparison_row(run, truth), truth


def comparison_row(run: Run, truth: Truth) -> dict[str, Any]:
    """A judged run's row of ``comparison.csv``.

    Arguments:
        run: The run.
        truth: Its ``exact.solve(run.model, run.guide, run.data)``.

    Returns:
        Nats per datum but for ``gap_bits``, the loss above the entropy in bits. ``kl_forward`` and ``kl_reverse``,
        KL(q ‖ p) and KL(p ‖ q) of all latents; ``amortisation`` and ``approximation``, the parts of the former;
        ``ideal_gap`` (`gaps.ideal_gap`), and ``bent``, by how much the approximation gap is lower; ``wasserstein``,
        from q(z_top|x) to the truncated normal, in units of the latent; ``khat``, of 10,000 draws, the worse
        codeword's; ``parameters``, the guide's number. None: infinite, or not defined.
    """
    figures, data = run.metrics, run.data
    joint = solve_joint(run.model, run.guide, data, truth)
    split = gap_split(run.model, run.guide, data, truth, joint)
    ideal = ideal_gap(run.guide, data, truth)
    mean = lambda per_codeword: finite(truth.probs @ per_codeword)  # noqa: E731
    approximation = mean(split.approximation)
    draws = log_weights(run.model, run.guide, data, _DRAWS, seed=run.config.seed)
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
