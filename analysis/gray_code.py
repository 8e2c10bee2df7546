"""In which order does a VAE lay its codewords along the line, and what does another order cost?

    python analysis/gray_code.py

One layer, a Gaussian q(z1|x), several bits. For each codebook runs from random weights and from the analytic start, ten
seeds each; the order of q's medians, orders that differ by a mirror, a bit's 0 and 1 or bits that weigh the same being
one; and the lowest loss of a Gaussian in that order and in any (`exact.gaussian_optimum`), which needs no training.
Writes ``gray_code.csv`` (a row per order), ``runs.csv`` (a row per run) and ``gray_code.png``, prints the table and the
answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from codebooks import canonical, judged, misplaced, named, repeats_of
from common import parser_of, trained, write
from matplotlib.figure import Figure

from pyro_onebit import BitsData, Config, exact
from pyro_onebit.files import write_table
from pyro_onebit.plots import DARK, GREY, LIGHT, PALETTE

REPEATS = ("2,2", "5,5", "500,500", "50,2", "50,1", "5,5,5", "30,30,30,30")
STARTS = ("random", "analytic")
#: Below the quadrature's own error a distance says nothing more.
LEAST = 1e-10


def runs_of(repeats: tuple[int, ...], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each run of a codebook."""
    data = BitsData(repeats)
    best = exact.gaussian_optimum(data)
    configs = [
        Config(repeats=repeats, start=start, seed=seed, steps=args.steps)
        for start in args.starts
        for seed in args.seeds
    ]
    rows = []
    for run in trained(configs, args, f"repeats {' '.join(map(str, repeats))}"):
        order = canonical(judged(run).order.tolist(), data)
        limit = exact.gaussian_optimum(data, order=order).loss
        rows.append(
            {
                "repeats": " ".join(map(str, repeats)),
                "start": run.config.start,
                "seed": run.config.seed,
                "order": named(order, data),
                "more bits than Gray": misplaced(order, data),
                "order's limit": limit,
                "order costs": max(0.0, limit - best.loss),
                "above": run.metrics["loss"] - best.loss,
            }
        )
    return rows


def table_of(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each order that runs of a codebook end in, from each start, the most frequent one first."""
    groups = runs.groupby([name for name in runs if name not in ("seed", "above")], sort=False)["above"]
    table = groups.agg(runs="size", median="median", worst="max").reset_index()
    place = table.groupby(["repeats", "start"], sort=False).ngroup()
    return table.assign(place=place).sort_values(["place", "runs"], ascending=[True, False]).drop(columns="place")


def draw(runs: pd.DataFrame) -> Figure:
    """How many runs end in a Gray code; and every run's loss, and the least that its order costs."""
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    top, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.2])
    cells = [cell for cell, _ in runs.groupby(["repeats", "start"], sort=False)]
    names = list(dict.fromkeys(repeats for repeats, _ in cells))
    colours = {True: PALETTE[0], False: PALETTE[1]}
    for repeats, start in cells:
        own = runs[(runs["repeats"] == repeats) & (runs["start"] == start)]
        x = names.index(repeats) + (0.2 if start == "analytic" else -0.2)
        gray = own["more bits than Gray"] == 0
        share = gray.mean()
        style = {"width": 0.3, "hatch": "//" if start == "analytic" else None, "edgecolor": "white"}
        top.bar(x, share, color=colours[True], **style)
        top.bar(x, 1.0 - share, bottom=share, color=colours[False], **style)
        beside = x + 0.028 * (own["seed"].rank() - 0.5 * (len(own) + 1))
        marker = "D" if start == "analytic" else "o"
        heights = own["above"].clip(lower=LEAST)
        axes.scatter(beside, heights, s=16.0, color=[colours[is_gray] for is_gray in gray], marker=marker)
        costs = own["order costs"][~gray & (own["order costs"] > LEAST)].unique()
        axes.hlines(costs, x - 0.19, x + 0.19, color=DARK, lw=1.0)
    top.set(ylabel="share of the seeds", ylim=(0.0, 1.0))
    for is_gray, label in ((True, "a Gray code"), (False, "another order")):
        axes.scatter([], [], s=40.0, marker="s", color=colours[is_gray], label=label)
    for marker, start in (("o", "random"), ("D", "analytic")):
        axes.scatter([], [], s=16.0, marker=marker, color=GREY, label=f"{start} start" + ", hatched" * (marker == "D"))
    axes.plot([], [], "-", color=DARK, lw=1.0, label="the least that the order costs")
    axes.set(yscale="log", ylabel="loss above the optimum (nats)", xlabel="dimensions in which each bit is repeated")
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", color=LIGHT)
    axes.set_axisbelow(True)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    return figure


def answer(table: pd.DataFrame) -> Iterator[str]:
    """How often the order is a Gray code, and what another one costs."""
    for start, own in table.groupby("start", sort=False):
        gray = own["more bits than Gray"] == 0
        share = own.loc[gray, "runs"].sum(), own["runs"].sum()
        text = f"From the {start} start {share[0]} of {share[1]} runs lay their codewords in a Gray code"
        others = own[~gray & (own["order costs"] > 1e-4)]
        if len(others):
            costs = others["order costs"]
            text += f"; the others' orders cost at least {costs.min():.4f} to {costs.max():.4f} nats"
        yield f"{text}; the worst run ends {own['worst'].max():.2g} above the optimum."


def main(args: argparse.Namespace) -> None:
    runs = pd.DataFrame([row for repeats in args.repeats for row in runs_of(repeats_of(repeats), args)])
    write_table(args.out / "runs.csv", runs)
    table = table_of(runs)
    write(args, "gray_code", table, draw(runs), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, "gray_code", repeats=REPEATS, starts=STARTS, seeds=tuple(range(10)))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
