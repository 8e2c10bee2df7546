"""Does every seed succeed? Many seeds of each cell of a grid: worst, median and best exact loss.

    python analysis/reliability.py --seeds 10 --presets default reference
    python analysis/reliability.py --seeds 10 --layers 2 --bits 2 --ndims 10 200     # each bit 5 and 100 times

Writes ``reliability.csv`` (a row per cell), ``runs.csv`` (a row per run) and ``reliability.png`` (a strip
plot that shows every seed), and prints the table and the answer. Cells and seeds that an earlier call has trained are
not trained again, and are shown as well.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from common import parser_of
from common import train as train_all
from matplotlib.figure import Figure

from pyro_onebit.files import read_table, write_table
from pyro_onebit.plots import LAYER_NAMES, LIGHT, MARKERS, PALETTE, legend, save
from pyro_onebit.reporting import markdown_table, summarise, summary_columns
from pyro_onebit.studies import Column, StudyGrid

#: What identifies a run here.
KEY = ["preset", "start", "layers", "ndims", "bits", "prob", "seed"]
RUN_COLUMNS = [*KEY, "loss", "optimum", "entropy", "mutual_information", "seconds"]
CELL = ("preset", "start", "layers", "ndims", "bits", "prob")
#: What has a column of its own in the figure.
PLACE = ["bits", "ndims", "prob"]
SUMMARY = ["seeds", "worst", "median", "best", "collapsed", "seconds"]
#: How a run may be trained: each way has a colour and a marker.
WAYS = ("default", "reference", "thorough", "default, analytic", "thorough, analytic")


def train(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each run, those of an earlier call included."""
    path = args.out / "runs.csv"
    table = read_table(path) if path.exists() else pd.DataFrame(columns=RUN_COLUMNS)
    cells = itertools.product(args.presets, args.starts, args.layers, args.ndims, args.probs)
    for preset, start, layers, ndims, prob in cells:
        there = table[table[list(CELL)].eq([preset, start, layers, ndims, args.bits, prob]).all(axis=1)]
        seeds = tuple(seed for seed in range(args.seeds) if seed not in set(there["seed"]))
        if not seeds:
            continue
        ways: dict[str, Any] = {"preset": preset, "start": start, "steps": args.steps}
        cell = StudyGrid((ndims,), (layers,), seeds=seeds, bits=args.bits, prob=prob, **ways)
        what = f"{preset}, {start} start, layers {layers}, n = {ndims}, probability {prob:g}"
        study = train_all(cell.configs(), args, what, args.out / f"{preset}-{start}")
        rows = study.table.assign(preset=preset, start=start)[RUN_COLUMNS]
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        write_table(path, table)
    return table


def way_of(table: pd.DataFrame) -> pd.Series:
    """How a row was trained: the preset and, where it is not the usual one, the start."""
    return table["preset"].where(table["start"] == "random", table["preset"] + ", " + table["start"])


def strip_plot(table: pd.DataFrame) -> Figure:
    """Every seed's distance from the limit: a panel for each number of layers, a column for each other cell."""
    table = table.assign(way=way_of(table))
    ways, all_layers = [way for way in WAYS if way in set(table["way"])], sorted(set(table["layers"]))
    figure = Figure(figsize=(9.0, 0.6 + 3.4 * len(all_layers)), layout="constrained")
    panels: Any = figure.subplots(len(all_layers), 1, sharey=True, squeeze=False)
    for axes, layers in zip(panels[:, 0], all_layers, strict=True):
        of_layers = table[table["layers"] == layers]
        cells = sorted(set(of_layers[PLACE].itertuples(index=False, name=None)))
        # Each cell's own ways side by side, around its tick.
        held = {cell: [way for way in ways if way in set(own["way"])] for cell, own in of_layers.groupby(PLACE)}
        for way in ways:
            own = of_layers[of_layers["way"] == way]
            place = []
            for row in own.itertuples():
                cell = row.bits, row.ndims, row.prob
                beside = held[cell]
                shift = 0.2 * (beside.index(way) - (len(beside) - 1) / 2)
                place.append(cells.index(cell) + shift + 0.008 * (row.seed - 10))
            # Below the quadrature's own error a distance says nothing more.
            height = (own["loss"] - own["optimum"]).clip(lower=1e-8)
            place_of = WAYS.index(way)
            style: dict[str, Any] = {"color": PALETTE[place_of], "marker": MARKERS[place_of], "label": way}
            axes.plot(place, height, ls="none", ms=3, alpha=0.7, **style)
        labels = [_short(n) + f"\n{p:g}" * (p != 0.5) + f"\n{bits} bits" * (bits > 1) for bits, n, p in cells]
        axes.set_xticks(range(len(cells)), labels, fontsize=9)
        axes.set(
            yscale="log",
            ylabel="loss above the limit (nats)",
            title=LAYER_NAMES[layers],
            xlabel="dimensions $n$, and probability if not ½",
        )
        axes.grid(axis="y", color=LIGHT)
    legend(figure, loc="outside lower center", ncols=3)
    return figure


def _short(ndims: int) -> str:
    """A number of dimensions as a tick's label: large powers of ten as such."""
    power = len(str(ndims)) - 1
    return f"$10^{power}$" if ndims >= 10_000 and ndims == 10**power else str(ndims)


def answer(table: pd.DataFrame) -> Iterator[str]:
    """The question's answer in a sentence for each way to train."""
    for way, own in table.groupby(way_of(table), sort=False):
        worst = own.loc[own["worst"].idxmax()]
        collapsed = (own["collapsed"] * own["seeds"]).sum()
        yield (
            f"{way}: {collapsed:.0f} of {own['seeds'].sum()} runs collapsed; the worst ends {worst['worst']:.4f} "
            f"nats above its limit ({worst['layers']} layer(s), ndims {worst['ndims']}, bits {worst['bits']})."
        )


def main(args: argparse.Namespace) -> None:
    runs = train(args).sort_values(KEY, ignore_index=True)
    table = summarise(runs, CELL)[[*CELL, *SUMMARY]]
    write_table(args.out / "reliability.csv", table)
    save(strip_plot(runs), args.out / "reliability.png")
    columns = [Column("preset"), Column("start"), *summary_columns(table.drop(columns=["preset", "start"]))]
    print(markdown_table(table.astype(object).to_dict("records"), columns))
    print(*answer(table), sep="\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    lists = {"ndims": [1, 5, 10, 100, 1000], "layers": [1, 2], "probs": [0.5]}
    ways = {"presets": ["default"], "starts": ["random"]}
    return parser_of(__doc__, "reliability", **lists, **ways, bits=1, seeds=20).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
