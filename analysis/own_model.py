"""A model of one's own: what does a decoder lose whose dimensions share one output?

    python analysis/own_model.py                               # about a minute on two cores
    python analysis/own_model.py --ndims 5 100000 --seeds 0

The data's dimensions are alike, so that a decoder need not tell them apart: nothing should be lost, and a step should
take less. A model is a Pyro program, here the built-in one with another p(x|z1).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd
from common import parser_of, tell_failures, write
from pyro.distributions import Independent
from torch import Tensor

from pyro_onebit import OneLayerModel, register_model
from pyro_onebit.distributions import BinaryBernoulli
from pyro_onebit.nn import Architecture, BernoulliNet
from pyro_onebit.plots import loss_figure
from pyro_onebit.studies import StudyGrid, run_study


class SharedNet(BernoulliNet):
    """p(x|z1) with the same log-odds in every dimension."""

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(1, arch, prob)
        self.ndims = ndims

    def forward(self, c: Tensor) -> Independent:
        """The conditional given z1."""
        logits: Tensor = super().forward(c).base_dist.logits
        return BinaryBernoulli(logits=logits.expand(*logits.shape[:-1], self.ndims)).to_event(1)


@register_model("shared")
class SharedModel(OneLayerModel):
    """z1 ~ N(0, 1), and one output for all dimensions."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__(ndims, prob, arch)
        self.p_x = SharedNet(ndims, arch, prob)


def main(args: argparse.Namespace) -> None:
    names = {"models": ("one_layer", "shared"), "seeds": tuple(args.seeds)}
    study = run_study(StudyGrid(tuple(args.ndims), (1,), steps=args.steps, **names).configs(), args.out, args.jobs)
    tell_failures(study.failures)
    runs = study.table.assign(above=study.table["loss"] - study.table["optimum"])
    cells = runs.groupby(["ndims", "model"], sort=False)
    table = cells.agg(seeds=("seed", "count"), worst=("above", "max"), seconds=("seconds", "median")).reset_index()
    write(args, "own_model", table, loss_figure(study.table), answer(table))


def answer(table: pd.DataFrame) -> str:
    worst = table.groupby("model", sort=False)["worst"].max()
    return (
        "Worst loss above the limit, nats: " + ", ".join(f"{name} {above:.5f}" for name, above in worst.items()) + "."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return parser_of(__doc__, "own_model", ndims=[5, 1000], seeds=[0, 1, 2]).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
