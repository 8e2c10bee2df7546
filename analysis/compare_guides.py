"""What does each family of guides cost, and whose is the gap: the family's, or the amortisation's?

    python analysis/compare_guides.py                          # five seeds: about ten minutes on two cores
    python analysis/compare_guides.py --ndims 5 --seeds 0 1

Every guide is trained at each number of dimensions and from each seed, and judged exactly. The table has, of the
seeds, the worst loss and otherwise medians; ``comparison.csv`` has them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import pandas as pd
from common import parser_of, tell_failures, write

from pyro_onebit.plots import comparison_figure, cost_figure, save
from pyro_onebit.reporting import summarise
from pyro_onebit.studies import StudyGrid, compare

GUIDES = ("prior", "gaussian", "mixture", "flow", "truncated", "two_layer", "oracle")


def main(args: argparse.Namespace) -> None:
    grid = StudyGrid(
        tuple(args.ndims), guides=tuple(args.guides), seeds=tuple(args.seeds), prob=args.prob, steps=args.steps
    )
    comparison = compare(grid.configs(), args.out, args.jobs, quiet=False)
    tell_failures(comparison.failures)
    table = summarise(comparison.table, by=("ndims", "guide"))
    save(cost_figure(comparison.table), args.out / "loss-seconds.png")
    write(args, "compare_guides", table, comparison_figure(comparison.truths), answer(table))


def answer(table: pd.DataFrame) -> Iterator[str]:
    """The order of the families, and whose the gap is."""
    for ndims, own in table.sort_values("worst_gap", ascending=False).groupby("ndims"):
        order = " > ".join(f"{guide} {gap:.4f}" for guide, gap in zip(own["guide"], own["worst_gap"], strict=True))
        yield f"n = {ndims}, loss above the entropy in nats, the worst seed's: {order}."
        gaussian = own[own["guide"] == "gaussian"]["worst"]
        if len(gaussian):
            yield f"  The Gaussian ends at most {gaussian.iloc[0]:.5f} above its own optimum."
        for row in own.itertuples():
            if row.guide != "prior" and row.kl_forward > 0.01:
                share = row.approximation / row.kl_forward
                bent = f"; the model has bent to save {row.bent:.3f} nats" if row.bent > 0.01 else ""
                yield f"  {share:.0%} of {row.guide}'s gap to the posterior is its family's{bent} (medians)."


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    defaults = {"guides": list(GUIDES), "ndims": [5, 100, 1000], "seeds": list(range(5)), "prob": 0.5}
    return parser_of(__doc__, "compare_guides", **defaults).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
