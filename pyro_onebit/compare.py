"""Guides and objectives side by side: what each costs, and which part of its gap is whose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_onebit.bounds import log_weights
from pyro_onebit.config import Config, layers_of
from pyro_onebit.exact import Truth, solve_joint
from pyro_onebit.files import check_writable, finite
from pyro_onebit.gaps import gap_split, ideal_gap
from pyro_onebit.psis import khat
from pyro_onebit.runs import write_table
from pyro_onebit.study import run_name, spread, train, write_failures
from pyro_onebit.training import Run

__all__ = ["COLUMNS", "Comparison", "compare", "comparison_grid", "comparison_row"]

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


def comparison_grid(
    guides: Sequence[str],
    objectives: Sequence[str | None],
    ndims: Sequence[int],
    seeds: Sequence[int],
    **common: Any,
) -> Iterator[Config]:
    """The configurations of a comparison, every combination once; each guide brings its number of layers.

    Arguments:
        guides: Registered names.
        objectives: Names; None is the recipe's own. What a guide cannot be trained with is refused.
        ndims: Dimensions of x.
        seeds: Seeds.

    Raises:
        InputError: If a value is out of range, a name is unknown or a combination makes no sense.
    """
    configs = (
        Config(ndims=n, layers=layers_of(guide), guide=guide, objective=objective, seed=seed, **common)
        for n, guide, objective, seed in itertools.product(ndims, guides, objectives, seeds)
    )
    yield from dict.fromkeys(configs)


def compare(configs: Sequence[Config], out: Path, jobs: int, *, quiet: bool = True) -> Comparison:
    """Train what is not there yet, judge each run and write ``out/comparison.csv``.

    Runs are kept under ``out/runs``; one that is there, whole and of the same configuration, is not trained again.

    Arguments:
        configs: The grid.
        out: The comparison's directory.
        jobs: Processes, each with one thread.
        quiet: Show no progress bar.

    Raises:
        InputError: If `jobs` is below 1 or `out` cannot be written.
    """
    check_writable(out)
    results = dict(spread(_compare_one, configs, out, jobs, quiet=quiet))
    rows, truths = [], []
    failures: dict[Config, str] = {}
    cells = set()
    for i, config in enumerate(configs):
        result = results[i]
        if isinstance(result, str):
            failures[config] = result
            continue
        row, truth = result
        rows.append(row)
        cell = (config.guide, config.objective, config.ndims)
        if cell not in cells:
            cells.add(cell)
            truths.append((config, truth))
    write_table(out / "comparison.csv", COLUMNS, rows)
    write_failures(failures, out)
    return Comparison(rows, {run_name(config): reason for config, reason in failures.items()}, truths)


def _compare_one(config: Config, path: Path) -> tuple[dict[str, Any], Truth]:
    """One run in a worker: its row and densities."""
    run = train(config, path)
    truth = run.judge().truth
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
