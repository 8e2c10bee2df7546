"""What does it cost that one encoder serves all codewords? The amortisation gap, which two codewords do not have.

    python analysis/amortisation.py

The part of KL(q(z|x) ‖ p(z|x)) that a Gaussian for each codeword alone would save (`diagnostics.gap_split`), for
trained one-layer runs: against the number of codewords, the encoder's width and the steps of the training, each with
the others as they are by default. Medians over seeds, nats. Writes ``amortisation.csv`` and ``amortisation.png``,
prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pandas as pd
from codebooks import judged, train
from common import parser_of, write
from matplotlib.figure import Figure

from pyro_onebit import Config, Run, diagnostics, exact
from pyro_onebit.plots import LIGHT, PALETTE

#: What is drawn of a gap that is nothing.
LEAST = 1e-8
TITLES = {"codewords": "codewords M", "width": "encoder's width", "steps": "steps of the training"}


def amortisation_of(run: Run) -> float:
    """The amortisation gap, nats per datum."""
    truth = judged(run)
    joint = exact.solve_joint(run.model, run.guide, run.data, truth)
    return float(truth.probs @ diagnostics.gap_split(run.model, run.guide, run.data, truth, joint).amortisation)


def configs_of(args: argparse.Namespace, seed: int) -> dict[tuple[str, int], Config]:
    """A configuration for each value of what is varied."""
    common: dict[str, Any] = {"seed": seed, "start": "analytic"}
    usual: dict[str, Any] = {**common, "bits": args.bits, "ndims": args.repeat * args.bits}
    if args.steps:
        common["steps"] = usual["steps"] = args.steps
    found = {("codewords", 2**k): Config(ndims=args.repeat * k, bits=k, **common) for k in range(1, args.most + 1)}
    found |= {("width", width): Config(**usual, width_x=width) for width in args.widths}
    trainings = sorted({min(steps, args.steps or steps) for steps in args.trainings})
    return found | {("steps", steps): Config(**{**usual, "steps": steps}) for steps in trainings}


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each thing that is varied."""
    kinds = list(dict.fromkeys(table["varied"]))
    figure = Figure(figsize=(3.6 * len(kinds), 3.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
        own = table[table["varied"] == kind]
        values = own[["least", "median", "most"]].clip(lower=LEAST)
        axes.fill_between(own["value"], values["least"], values["most"], color=PALETTE[0], alpha=0.2, lw=0.0)
        axes.plot(own["value"], values["median"], "o-", color=PALETTE[0])
        axes.set(xscale="log", yscale="log", xlabel=TITLES[kind])
        axes.set_xticks(own["value"], [str(value) for value in own["value"]])
        axes.minorticks_off()
        axes.grid(color=LIGHT)
    figure.axes[0].set_ylabel("amortisation gap (nats)")
    return figure


def answer(table: pd.DataFrame) -> str:
    """By how much the gap grows or shrinks along each."""
    sentences = []
    for kind, own in table.groupby("varied", sort=False):
        first, last = own.iloc[0], own.iloc[-1]
        sentences.append(
            f"With {TITLES[str(kind)]} from {first['value']} to {last['value']} the amortisation gap goes from "
            f"{first['median']:.2g} to {last['median']:.2g} nats."
        )
    return " ".join(sentences)


def main(args: argparse.Namespace) -> None:
    """Train, split the gaps, draw, answer."""
    cells: dict[tuple[str, int], list[Run]] = {}
    gaps: dict[Config, float] = {}
    for seed in args.seeds:
        for cell, config in configs_of(args, seed).items():
            [run] = train([config], args, f"seed {seed}, {cell[0]} {cell[1]}")
            cells.setdefault(cell, []).append(run)
            if config not in gaps:
                gaps[config] = amortisation_of(run)
    rows = []
    for (kind, value), runs in cells.items():
        own = pd.Series([gaps[run.config] for run in runs])
        loss = pd.Series([run.metrics["loss"] - run.metrics["optimum"] for run in runs])
        figures = {"least": own.min(), "median": own.median(), "most": own.max(), "loss above optimum": loss.median()}
        rows.append({"varied": kind, "value": value, "runs": len(runs), **figures})
    table = pd.DataFrame(rows)
    write(args, "amortisation", table, draw(table), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of(
        __doc__,
        "amortisation",
        repeat=5,
        bits=2,
        most=3,
        widths=(2, 4, 10, 32),
        trainings=(250, 500, 1000, 2000, 4000),
        seeds=tuple(range(10)),
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
