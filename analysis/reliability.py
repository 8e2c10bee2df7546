"""Does every seed succeed? Many seeds of each cell of a grid: worst, median and best exact loss.

    python analysis/reliability.py --seeds 10 --presets default reference

Writes ``reliability.csv`` (a row a cell), ``runs.csv`` (a row a run) and ``reliability.png`` (a strip
plot that shows every seed), and prints the table and the answer. What is there already is not trained
again: a longer study goes on from a shorter one.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from common import parser_of, tell_failures
from matplotlib.figure import Figure

from pyro_onebit.files import read_table, write_table
from pyro_onebit.plots import LAYER_NAMES, LIGHT, MARKERS, PALETTE, legend, save
from pyro_onebit.reporting import markdown_table, summarise, summary_columns
from pyro_onebit.studies import Column, StudyGrid, run_study

#: What identifies a run here.
KEY = ["preset", "layers", "ndims", "prob", "seed"]
RUN_COLUMNS = [*KEY, "loss", "optimum", "entropy", "mutual_information", "seconds"]
CELL = ("preset", "layers", "ndims", "prob")
SUMMARY = ["seeds", "worst", "median", "best", "collapsed", "seconds"]


def train(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each run, those of an earlier call included."""
    path = args.out / "runs.csv"
    table = read_table(path) if path.exists() else pd.DataFrame(columns=RUN_COLUMNS)
    for preset, layers, ndims, prob in itertools.product(args.presets, args.layers, args.ndims, args.probs):
        there = table[table[list(CELL)].eq([preset, layers, ndims, prob]).all(axis=1)]
        seeds = tuple(seed for seed in range(args.seeds) if seed not in set(there["seed"]))
        if not seeds:
            continue
        cell = StudyGrid((ndims,), (layers,), seeds=seeds, prob=prob, preset=preset, steps=args.steps)
        study = run_study(cell.configs(), args.out / preset, args.jobs)
        tell_failures(study.failures)
        rows = study.table.assign(preset=preset)[RUN_COLUMNS]
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        write_table(path, table)
    asked = {
        "preset": args.presets,
        "layers": args.layers,
        "ndims": args.ndims,
        "prob": args.probs,
        "seed": range(args.seeds),
    }
    return table[table[KEY].isin({name: list(values) for name, values in asked.items()}).all(axis=1)]


def strip_plot(table: pd.DataFrame) -> Figure:
    """Every seed's distance from the limit: a panel for each number of layers, a column for each other cell."""
    presets, all_layers = sorted(set(table["preset"])), sorted(set(table["layers"]))
    figure = Figure(figsize=(9.0, 0.6 + 3.4 * len(all_layers)), layout="constrained")
    panels: Any = figure.subplots(len(all_layers), 1, sharey=True, squeeze=False)
    for axes, layers in zip(panels[:, 0], all_layers, strict=True):
        of_layers = table[table["layers"] == layers]
        cells = sorted(set(of_layers[["ndims", "prob"]].itertuples(index=False, name=None)))
        for i, preset in enumerate(presets):
            own = of_layers[of_layers["preset"] == preset]
            shift = 0.25 * (i - (len(presets) - 1) / 2)
            place = [cells.index((row.ndims, row.prob)) + shift + 0.008 * (row.seed - 10) for row in own.itertuples()]
            # Below the quadrature's own error a distance says nothing more.
            height = (own["loss"] - own["optimum"]).clip(lower=1e-8)
            style: dict[str, Any] = {"color": PALETTE[i], "marker": MARKERS[i], "label": preset}
            axes.plot(place, height, ls="none", ms=3, alpha=0.7, **style)
        labels = [f"{_short(n)}" + f"\np = {p:g}" * (p != 0.5) for n, p in cells]
        axes.set_xticks(range(len(cells)), labels, fontsize=9)
        axes.set(yscale="log", ylabel="loss above the limit (nats)", title=LAYER_NAMES[layers], xlabel="dimensions $n$")
        axes.grid(axis="y", color=LIGHT)
    legend(figure, loc="outside lower center", ncols=3)
    return figure


def _short(ndims: int) -> str:
    """A number of dimensions as a tick's label: large powers of ten as such."""
    power = len(str(ndims)) - 1
    return f"$10^{power}$" if ndims >= 10_000 and ndims == 10**power else str(ndims)


def answer(table: pd.DataFrame) -> str:
    """The question's answer in a sentence for each preset."""
    sentences = []
    for preset, own in table.groupby("preset", sort=False):
        worst = own.loc[own["worst"].idxmax()]
        collapsed = (own["collapsed"] * own["seeds"]).sum()
        sentences.append(
            f"{preset}: {collapsed:.0f} of {own['seeds'].sum()} runs collapsed; the worst ends {worst['worst']:.4f} "
            f"nats above its limit ({worst['layers']} layer(s), ndims {worst['ndims']})."
        )
    return "\n".join(sentences)


def main(args: argparse.Namespace) -> None:
    """Train, summarise, draw, answer."""
    runs = train(args)
    table = summarise(runs, CELL)[[*CELL, *SUMMARY]]
    write_table(args.out / "reliability.csv", table)
    save(strip_plot(runs), args.out / "reliability.png")
    columns = [Column("preset"), *summary_columns(table.drop(columns="preset"))]
    print(markdown_table(table.astype(object).to_dict("records"), columns))
    print(answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    lists = {"ndims": [1, 5, 10, 100, 1000], "layers": [1, 2], "probs": [0.5], "presets": ["default"]}
    return parser_of(__doc__, "reliability", **lists, seeds=20).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
