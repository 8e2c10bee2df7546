"""How near to the entropy do the ways come to factorise q(z1, z2|x), and a learned prior, and what holds each there?

    python analysis/factorisations.py                          # ten seeds: about half an hour on one core
    python analysis/factorisations.py --ndims 5 --seeds 0 1

A loss is the entropy plus what the model misses, -E log p(x) less the entropy, plus what the guide misses, KL(q(z|x) ‖
p(z|x)) of all latents. What no guide of the family can avoid is its limit. The table has, over the seeds, the worst
loss above the entropy and above the limit, and medians; ``runs.csv`` has them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from common import parser_of, write
from common import train as train_all
from matplotlib.figure import Figure

from pyro_onebit import OneBitData, register_guide
from pyro_onebit.files import write_table
from pyro_onebit.guides import FLOW_START, TopDownGuide
from pyro_onebit.nn import Architecture, SplineNet, between_latents
from pyro_onebit.plots import LIGHT, PALETTE
from pyro_onebit.studies import StudyGrid


@register_guide("top_down_flow")
class FlowTopDownGuide(TopDownGuide):
    """q(z2|x) a standard normal through a spline, q(z1|z2, x) a Gaussian."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__()
        self.q_z2 = SplineNet(ndims, 16, replace(arch, start=FLOW_START), prob)
        self.q_z1 = between_latents(arch, prob, down=True, context_dim=ndims)

    def optimum(self, data: OneBitData) -> float:
        """The entropy: let q(z2|x) be the prior on its codeword's side, and q(z1|z2, x) be p(z1|z2)."""
        return data.entropy


#: What is compared: layers, model and guide.
CASES = {
    "two_layer": (2, "two_layer", "two_layer"),
    "two_layer_skip": (2, "two_layer", "two_layer_skip"),
    "top_down": (2, "two_layer", "top_down"),
    "top_down_flow": (2, "two_layer", "top_down_flow"),
    "mean_field": (2, "two_layer", "mean_field"),
    "learned_prior": (1, "learned_prior", "gaussian"),
}
RUN_COLUMNS = ["case", "ndims", "seed", "loss", "entropy", "optimum", "log_evidence", "mutual_information", "seconds"]


def main(args: argparse.Namespace) -> None:
    runs = train(args)
    write_table(args.out / "runs.csv", runs)
    table = summary(runs)
    write(args, "factorisations", table, draw(runs), answer(table))


def train(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each run."""
    tables = []
    for case in args.cases:
        layers, model, guide = CASES[case]
        names: dict[str, Any] = {"models": (model,), "guides": (guide,), "seeds": tuple(args.seeds)}
        grid = StudyGrid(tuple(args.ndims), (layers,), prob=args.prob, steps=args.steps, **names)
        study = train_all(grid.configs(), args, case)
        tables.append(study.table.assign(case=case)[RUN_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each case and ndims, nats above the entropy but for `above_limit`."""
    parts = runs.assign(
        gap=runs["loss"] - runs["entropy"],
        above_limit=runs["loss"] - runs["optimum"],
        model=-runs["log_evidence"] - runs["entropy"],
        guide=runs["loss"] + runs["log_evidence"],
    )
    cells = parts.groupby(["case", "ndims"], sort=False)
    return cells.agg(
        seeds=("seed", "count"),
        worst=("gap", "max"),
        median=("gap", "median"),
        best=("gap", "min"),
        worst_above_limit=("above_limit", "max"),
        model=("model", "median"),
        guide=("guide", "median"),
        seconds=("seconds", "median"),
    ).reset_index()


def draw(runs: pd.DataFrame) -> Figure:
    """Every seed's distance from the entropy, with the families' limits."""
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes: Any = figure.subplots()
    cases, ndims = list(dict.fromkeys(runs["case"])), sorted(set(runs["ndims"]))
    for shift, (n, colour) in enumerate(zip(ndims, PALETTE, strict=False)):
        own = runs[runs["ndims"] == n]
        place = own["case"].map(cases.index) + 0.25 * shift + 0.012 * own["seed"]
        gap, limit = own["loss"] - own["entropy"], own["optimum"] - own["entropy"]
        # Below the quadrature's own error a distance says nothing more.
        axes.plot(place, gap.clip(lower=1e-6), ls="none", marker="o", ms=3, alpha=0.7, color=colour, label=f"n = {n}")
        held = limit > 0
        axes.plot(place[held], limit[held], ls="none", marker="_", ms=9, color=colour)
    axes.set_xticks([i + 0.3 for i in range(len(cases))], cases, fontsize=8)
    axes.set(yscale="log", ylabel="exact loss above the entropy (nats; bars: the limit)")
    axes.grid(axis="y", color=LIGHT)
    axes.legend(frameon=False)
    return figure


def answer(table: pd.DataFrame) -> Iterator[str]:
    """Where each case ends, and what holds it there."""
    for case, own in table.groupby("case", sort=False):
        worst = own.loc[own["worst"].idxmax()]
        limit = worst["worst"] - worst["worst_above_limit"]
        held = f"the family's limit is {limit:.4f}" if limit > 1e-6 else "the family's limit is the entropy"
        share = worst["guide"] / (worst["guide"] + worst["model"])
        yield (
            f"{case}: at most {worst['worst']:.4f} nats above the entropy (n = {worst['ndims']}), of which "
            f"{share:.0%} are the guide's distance from the model's posterior; {held}."
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    defaults = {"ndims": [5, 100, 1000], "seeds": list(range(10)), "prob": 0.5, "cases": list(CASES)}
    return parser_of(__doc__, "factorisations", **defaults).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
