"""In which order does a VAE lay its codewords along the line, and what does another order cost?

    python analysis/gray_code.py

One layer, a Gaussian q(z1|x), several bits. For each codebook runs from random weights and from the analytic start, ten
seeds each; the order of q's medians, orders that differ by a mirror, a bit's 0 and 1 or bits that weigh the same being
one; and the lowest loss of a Gaussian in that order and in any (`exact.gaussian_optimum`), which needs no training.
Writes ``gray_code.csv`` and ``gray_code.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pandas as pd
from codebooks import canonical, judged, misplaced, named, repeats_of, train
from common import parser_of, write
from matplotlib.figure import Figure

from pyro_onebit import BitsData, Config, exact
from pyro_onebit.plots import LIGHT, PALETTE

REPEATS = ("2,2", "5,5", "500,500", "50,2", "50,1", "5,5,5", "30,30,30,30")
STARTS = ("random", "analytic")


def rows_of(repeats: tuple[int, ...], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each order that runs of a codebook end in, from each start."""
    data = BitsData(repeats)
    best = exact.gaussian_optimum(data)
    configs = [
        Config(repeats=repeats, start=start, seed=seed, steps=args.steps)
        for start in args.starts
        for seed in args.seeds
    ]
    runs = [
        {
            "start": run.config.start,
            "order": canonical(judged(run).order.tolist(), data),
            "above": run.metrics["loss"] - best.loss,
        }
        for run in train(configs, args, f"repeats {' '.join(map(str, repeats))}")
    ]
    rows = []
    for (start, order), own in pd.DataFrame(runs).groupby(["start", "order"], sort=False):
        rows.append(
            {
                "repeats": " ".join(map(str, repeats)),
                "start": start,
                "order": named(order, data),
                "runs": len(own),
                "more bits than Gray": misplaced(order, data),
                "order costs": max(0.0, exact.gaussian_optimum(data, order=order).loss - best.loss),
                "median": own["above"].median(),
                "worst": own["above"].max(),
            }
        )
    return sorted(rows, key=lambda row: (STARTS.index(row["start"]), -row["runs"]))


def draw(table: pd.DataFrame) -> Figure:
    """Each order that was found: what it must cost, and the worst run that ended in it; a dot's area counts runs."""
    names = list(dict.fromkeys(table["repeats"]))
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for (is_gray, start), own in table.groupby([table["more bits than Gray"] == 0, "start"], sort=False):
        x = [names.index(repeats) + (0.16 if start == "analytic" else -0.16) for repeats in own["repeats"]]
        style = {"color": PALETTE[0 if is_gray else 1], "marker": "o" if start == "random" else "D"}
        label = f"{'a Gray code' if is_gray else 'another order'}, {start} start"
        axes.scatter(x, own["worst"].clip(lower=1e-5), s=14.0 * own["runs"], alpha=0.75, label=label, **style)
        axes.scatter(x, own["order costs"].clip(lower=1e-5), s=90.0, marker="_", color="0.1")
    axes.scatter([], [], s=90.0, marker="_", color="0.1", label="the least that the order costs")
    axes.set(yscale="log", ylabel="loss above the optimum (nats)", xlabel="dimensions in which each bit is repeated")
    axes.set_xticks(range(len(names)), names)
    axes.grid(color=LIGHT)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    return figure


def answer(table: pd.DataFrame) -> str:
    """How often the order is a Gray code, and what another one costs."""
    sentences = []
    for start, own in table.groupby("start", sort=False):
        gray = own["more bits than Gray"] == 0
        share = own.loc[gray, "runs"].sum(), own["runs"].sum()
        text = f"From the {start} start {share[0]} of {share[1]} runs lay their codewords in a Gray code"
        others = own[~gray & (own["order costs"] > 1e-4)]
        if len(others):
            text += (
                f"; the others' orders cost {others['order costs'].min():.4f} to {others['order costs'].max():.4f} nats"
            )
        sentences.append(f"{text}; the worst run ends {own['worst'].max():.4f} above the optimum.")
    return "\n".join(sentences)


def main(args: argparse.Namespace) -> None:
    """Train, find the orders, search for what they cost, draw, answer."""
    table = pd.DataFrame([row for repeats in args.repeats for row in rows_of(repeats_of(repeats), args)])
    write(args, "gray_code", table, draw(table), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, "gray_code", repeats=REPEATS, starts=STARTS, seeds=tuple(range(10)))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
