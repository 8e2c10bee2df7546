"""Does every seed succeed? Many seeds of each cell of a grid: worst, median and best exact loss.

    python analysis/reliability.py --seeds 10 --presets default reference

Writes ``reliability.csv`` (a row a cell), ``runs.csv`` (a row a run) and ``reliability.png`` (a strip
plot that shows every seed), and prints the table and the answer. What is there already is not trained
again: a longer study goes on from a shorter one.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_onebit.plots import save
from pyro_onebit.runs import read_table, write_table
from pyro_onebit.study import run_study
from pyro_onebit.studyfile import StudyGrid
from pyro_onebit.tables import SUMMARY, summarise

#: What identifies a run here.
KEY = ("preset", "layers", "ndims", "prob", "seed")
RUN_COLUMNS = (*KEY, "loss", "optimum", "entropy", "mutual_information", "seconds")
CELL = ("preset", "layers", "ndims", "prob")
COLOURS = {"default": "#0072B2", "thorough": "#009E73", "reference": "#D55E00"}


def train(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a run, those of an earlier call included."""
    path = args.out / "runs.csv"
    rows = read_table(path) if path.exists() else []
    done = {tuple(row[name] for name in KEY) for row in rows}
    for preset, layers, ndims, prob in itertools.product(args.presets, args.layers, args.ndims, args.probs):
        seeds = tuple(seed for seed in range(args.seeds) if (preset, layers, ndims, prob, seed) not in done)
        cell = StudyGrid((ndims,), (layers,), seeds=seeds, prob=prob, preset=preset, steps=args.steps)
        study = run_study(cell.configs(), args.out / preset, args.jobs)
        for name, reason in study.failures.items():
            print(f"{name} failed: {reason}")
        rows += [{name: {**row, "preset": preset}[name] for name in RUN_COLUMNS} for row in study.rows]
        write_table(path, RUN_COLUMNS, rows)
    chosen = (args.presets, args.layers, args.ndims, args.probs, range(args.seeds))
    return [row for row in rows if all(row[name] in values for name, values in zip(KEY, chosen, strict=True))]


def format_cells(table: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown; nats above the family's limit."""
    lines = [
        "| preset | layers | ndims | prob | seeds | worst | median | best | collapsed | s a run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        lines.append(
            f"| {row['preset']} | {row['layers']} | {row['ndims']} | {row['prob']:g} | {row['seeds']} "
            f"| {row['worst']:.5f} | {row['median']:.5f} | {row['best']:.5f} "
            f"| {row['collapsed']:.0%} | {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def strip_plot(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every seed's distance from the limit, a column a cell."""
    cells = sorted({(row["layers"], row["ndims"], row["prob"]) for row in rows})
    presets = sorted({row["preset"] for row in rows})
    figure = Figure(figsize=(2.0 + 0.8 * len(cells), 4.5), layout="constrained")
    axes = figure.subplots()
    for shift, preset in enumerate(presets):
        own = [row for row in rows if row["preset"] == preset]
        place = [
            cells.index((row["layers"], row["ndims"], row["prob"])) + 0.25 * shift + 0.008 * row["seed"] for row in own
        ]
        # Below the quadrature's own error a distance says nothing more.
        height = [max(row["loss"] - row["optimum"], 1e-6) for row in own]
        axes.plot(place, height, ls="none", marker="o", ms=3, alpha=0.7, color=COLOURS[preset], label=preset)
    labels = [f"{layers} layer{'s' * (layers > 1)}\nn = {n}" + f"\np = {p:g}" * (p != 0.5) for layers, n, p in cells]
    axes.set_xticks([i + 0.125 * len(presets) for i in range(len(cells))], labels, fontsize=8)
    axes.set(yscale="log", ylabel="exact loss above the limit (nats)")
    axes.grid(axis="y", color="0.93")
    axes.legend(frameon=False)
    return figure


def answer(table: Sequence[dict[str, Any]]) -> str:
    """The question's answer in a sentence for each preset."""
    sentences = []
    for preset in dict.fromkeys(row["preset"] for row in table):
        own = [row for row in table if row["preset"] == preset]
        worst = max(own, key=lambda row: row["worst"])
        collapsed = sum(row["collapsed"] * row["seeds"] for row in own)
        sentences.append(
            f"{preset}: {collapsed:.0f} of {sum(row['seeds'] for row in own)} runs collapsed; the worst ends "
            f"{worst['worst']:.4f} nats above its limit ({worst['layers']} layer(s), ndims {worst['ndims']})."
        )
    return "\n".join(sentences)


def main(args: argparse.Namespace) -> None:
    """Train, summarise, draw, answer."""
    rows = train(args)
    table = summarise(rows, CELL)
    write_table(args.out / "reliability.csv", (*CELL, *SUMMARY), table)
    save(strip_plot(rows), args.out / "reliability.png")
    print(format_cells(table))
    print(answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ndims", type=int, nargs="+", default=[1, 5, 10, 100, 1000])
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--probs", type=float, nargs="+", default=[0.5])
    parser.add_argument("--presets", nargs="+", default=["default"])
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--steps", type=int, default=None, help="steps, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("results/reliability"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
