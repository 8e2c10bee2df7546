"""A two-layer guide of one's own: does a flow for q(z2|x) bring a top-down guide to the entropy?

    python analysis/own_two_layer_guide.py                     # about two minutes on two cores
    python analysis/own_two_layer_guide.py --ndims 5 1000 --seeds 0 1 2

A guide of two layers says how q(z1, z2|x) factorises by what it extends (`MarkovGuide`, `SkipGuide`, `TopDownGuide`,
`MeanFieldGuide`), and sets its two conditionals: any networks or methods that give distributions. With all conditionals
Gaussian, the top-down factorisation cannot come to the entropy (`top_down_optimum`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from common import parser_of, tell_failures, write

from pyro_onebit import OneBitData, register_guide
from pyro_onebit.guides import FLOW_START, TopDownGuide
from pyro_onebit.nn import Architecture, SplineNet, between
from pyro_onebit.plots import loss_figure
from pyro_onebit.studies import StudyGrid, run_study


@register_guide("top_down_flow")
class FlowTopDownGuide(TopDownGuide):
    """q(z2|x) a standard normal through a spline, q(z1|z2, x) a Gaussian."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__()
        self.q_z2 = SplineNet(ndims, 16, replace(arch, start=FLOW_START), prob)
        self.q_z1 = between(arch, prob, down=True, context_dim=ndims)

    def optimum(self, data: OneBitData) -> float:
        """The entropy: let q(z2|x) be the prior on its codeword's side, and q(z1|z2, x) be p(z1|z2)."""
        return data.entropy


def main(args: argparse.Namespace) -> None:
    grid = StudyGrid(tuple(args.ndims), (2,), guides=tuple(args.guides), seeds=tuple(args.seeds), steps=args.steps)
    study = run_study(grid.configs(), args.out, args.jobs)
    tell_failures(study.failures)
    runs = study.table.assign(gap=study.table["loss"] - study.table["entropy"])
    table = runs.groupby(["ndims", "guide"]).agg(
        seeds=("seed", "count"), worst=("gap", "max"), median=("gap", "median")
    )
    table = table.reset_index()
    write(args, "own_two_layer_guide", table, loss_figure(study.table), answer(table))


def answer(table: pd.DataFrame) -> str:
    worst = table.groupby("guide")["worst"].max()
    return (
        "Worst loss above the entropy, nats: " + ", ".join(f"{guide} {gap:.4f}" for guide, gap in worst.items()) + "."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = {"guides": ["top_down", "top_down_flow"], "ndims": [5, 100], "seeds": [0, 1, 2]}
    return parser_of(__doc__, "own_two_layer_guide", **defaults).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
