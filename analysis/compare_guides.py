"""What does each family of guides cost, and whose is the gap: the family's, or the amortisation's?

    python analysis/compare_guides.py                          # five seeds: about ten minutes on two cores
    python analysis/compare_guides.py --ndims 5 --seeds 0 1

Every guide is trained at each number of dimensions and from each seed, and judged exactly. The table has, of the
seeds, the worst loss and otherwise medians; ``comparison.csv`` has them all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import write

from pyro_onebit.compare import compare
from pyro_onebit.plots import comparison_figure, cost_figure, save
from pyro_onebit.studyfile import StudyGrid

GUIDES = ("prior", "gaussian", "mixture", "flow", "truncated", "two_layer", "oracle")
#: Of these the table has medians over seeds.
MEDIANS = ("kl_forward", "approximation", "amortisation", "ideal_gap", "bent", "wasserstein", "khat", "seconds")


def main(args: argparse.Namespace) -> None:
    lists: dict[str, Any] = {name: tuple(getattr(args, name)) for name in ("ndims", "guides", "seeds")}
    grid = StudyGrid(**lists, prob=args.prob, steps=args.steps)
    comparison = compare(grid.configs(), args.out, args.jobs, quiet=False)
    for name, reason in comparison.failures.items():
        print(f"{name} failed: {reason}")
    rows = summarise(comparison.rows)
    save(cost_figure(comparison.rows), args.out / "loss-seconds.png")
    write(args, "compare_guides", rows, comparison_figure(comparison.truths), answer(rows))


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each number of dimensions and guide, over its seeds."""
    cells: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["ndims"], row["guide"]), []).append(row)
    return [
        {
            "ndims": ndims,
            "guide": guide,
            "seeds": len(own),
            "worst_gap": max(row["gap_nats"] for row in own),
            "best_gap": min(row["gap_nats"] for row in own),
            "above_optimum": max(row["loss"] - row["optimum"] for row in own) if guide == "gaussian" else None,
            **{name: _median([row[name] for row in own]) for name in MEDIANS},
        }
        for (ndims, guide), own in cells.items()
    ]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def answer(rows: Sequence[dict[str, Any]]) -> str:
    """The order of the families, and whose the gap is."""
    sentences = []
    for ndims in sorted({row["ndims"] for row in rows}):
        own = sorted((row for row in rows if row["ndims"] == ndims), key=lambda row: -row["worst_gap"])
        order = " > ".join(f"{row['guide']} {row['worst_gap']:.4f}" for row in own)
        sentences.append(f"n = {ndims}, loss above the entropy in nats, the worst seed's: {order}.")
        for row in own:
            if row["guide"] != "prior" and (row["kl_forward"] or 0.0) > 0.01:
                share = row["approximation"] / row["kl_forward"]
                bent = f"; the model has bent to save {row['bent']:.3f} nats" if (row["bent"] or 0.0) > 0.01 else ""
                sentences.append(f"  {share:.0%} of {row['guide']}'s gap to the posterior is its family's{bent}.")
    return "\n".join(sentences)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--guides", nargs="+", default=list(GUIDES))
    parser.add_argument("--ndims", type=int, nargs="+", default=[5, 100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--prob", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=None, help="steps of the training, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("results/compare_guides"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse())
