"""What was measured, as tables, a figure and a sentence."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peers.measure import MARGIN, PEERS, Row

__all__ = ["TITLES", "answer", "fastest", "format_table", "medians", "plot", "write_csv"]

TITLES = {
    "cells": f"Each cell, medians (reached_s: until the exact loss is within {MARGIN} of the optimum)",
    "study": "The whole study, one call, wall time with processes' start and imports",
    "step": "A step of the default preset, and the same step by hand in torch",
    "growth_ndims": "Time and memory against the number of dimensions, default preset",
    "growth_runs": "Time and memory against the number of runs in a study, default preset",
}


def medians(rows: Sequence[Row], by: tuple[str, ...]) -> list[Row]:
    """One row a group: the median of every other number over the group's rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    result = []
    for key, group in groups.items():
        rest = [name for name in group[0] if name not in (*by, "seed")]
        values = {name: statistics.median(row[name] for row in group) for name in rest}
        if "reached_s" in values:
            values["arrived"] = f"{sum(row['reached_s'] < math.inf for row in group)}/{len(group)}"
        result.append(dict(zip(by, key, strict=True)) | values)
    return result


def fastest(rows: Sequence[Row]) -> list[Row]:
    """Of each contender's ways to train a cell the one that takes the least time."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        cell = (row["contender"], row["layers"], row["ndims"])
        best[cell] = min(best.get(cell, row), row, key=lambda row: row["seconds"])
    return list(best.values())


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def format_table(rows: Sequence[Row]) -> str:
    def text(name: str, value: Any) -> str:
        if not isinstance(value, float):
            return str("" if value is None else value)
        if math.isinf(value):
            return "never" if name == "reached_s" else "-"
        if name in ("loss", "own_loss", "excess"):
            return f"{value:.5f}"
        return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"

    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([text(name, row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


# Okabe and Ito's colours, told apart without colour vision too by their markers.
STYLES = {
    "package": {"color": "#0072B2", "marker": "o"},
    "reference": {"color": "#56B4E9", "marker": "s"},
    "pyro": {"color": "#E69F00", "marker": "^"},
    "numpyro": {"color": "#D55E00", "marker": "D"},
    "torch": {"color": "#009E73", "marker": "v"},
    "onebit study": {"color": "#000000", "marker": "*"},
}


def plot(tables: dict[str, list[Row]]) -> Any:
    """A panel for each question that was asked."""
    from matplotlib.figure import Figure

    cells = tables.get("cells", [])
    panels: list[Callable[[Any], None]] = []
    if cells:
        panels += [
            lambda ax: plot_cells(ax, cells, "seconds", "training time (s)"),
            lambda ax: plot_cells(ax, cells, "reached_s", f"time to optimum + {MARGIN} nat (s); gap: never"),
            lambda ax: plot_cells(ax, cells, "excess", "exact loss above optimum (nats per datum)"),
        ]
    if "study" in tables:
        panels.append(lambda ax: plot_study(ax, tables["study"]))
    if "step" in tables:
        panels.append(lambda ax: plot_step(ax, tables["step"]))
    if "growth_ndims" in tables:
        panels += [
            lambda ax: plot_growth(ax, tables["growth_ndims"], "ms_per_step", "time of a step (ms)"),
            lambda ax: plot_growth(ax, tables["growth_ndims"], "peak_judged_mb", "peak memory of a run (MB)"),
            lambda ax: plot_runs(ax, tables["growth_runs"]),
        ]
    columns = min(len(panels), 3)
    figure = Figure(figsize=(5 * columns, 4 * math.ceil(len(panels) / columns)), layout="constrained")
    for i, panel in enumerate(panels):
        panel(figure.add_subplot(math.ceil(len(panels) / columns), columns, i + 1))
    return figure


def plot_cells(ax: Any, rows: Sequence[Row], name: str, label: str) -> None:
    cells = list(dict.fromkeys((row["layers"], row["ndims"]) for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    for i, contender in enumerate(contenders):
        value = {(row["layers"], row["ndims"]): row[name] for row in rows if row["contender"] == contender}
        # An excess of nothing, but for quadrature, has its place at the bottom of the logarithmic axis.
        heights = [max(value[cell], 1e-6) if math.isfinite(value[cell]) else math.nan for cell in cells]
        # Side by side, so that equal values do not hide each other.
        places = [place + 0.12 * (i - (len(contenders) - 1) / 2) for place in range(len(cells))]
        ax.plot(places, heights, linestyle="none", label=contender, **STYLES[contender])
    ax.set_xticks(range(len(cells)), [f"{layers}L\n{ndims}" for layers, ndims in cells])
    ax.set(xlabel="layers (L), and dimensions n", ylabel=label)
    ax.legend(fontsize="small")
    logarithmic(ax, [row[name] for row in rows])


def plot_study(ax: Any, rows: Sequence[Row]) -> None:
    labels = [f"{row['contender']}\n{row['processes']} × {row['threads']} thread(s)" for row in rows]
    heights = [row["wall_s"] for row in rows]
    bars = ax.barh(labels, heights, color=[STYLES[row["contender"]]["color"] for row in rows])
    ax.bar_label(bars, fmt="%.3g", padding=2)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="wall time of the whole study (s)", ylabel="contender, and processes × threads")


def plot_step(ax: Any, rows: Sequence[Row]) -> None:
    for layers, line in by_layers(rows):
        ax.plot([row["ndims"] for row in line], [row["ratio"] for row in line], **LINES[layers])
    ax.axhline(1.5, color="black", linestyle=":", label="goal")
    ax.set(xscale="log", xlabel="dimensions n", ylabel="time of a step ÷ the same by hand in torch", ylim=(0, None))
    ax.legend(fontsize="small")


def plot_growth(ax: Any, rows: Sequence[Row], name: str, label: str) -> None:
    for layers, line in by_layers(rows):
        ax.plot([row["ndims"] for row in line], [row[name] for row in line], **LINES[layers])
    ax.set(xscale="log", xlabel="dimensions n", ylabel=label)
    ax.legend(fontsize="small")
    logarithmic(ax, [row[name] for row in rows])


def logarithmic(ax: Any, heights: Sequence[float]) -> None:
    """A logarithmic vertical axis, which needs something to show."""
    if any(map(math.isfinite, heights)):
        ax.set_yscale("log")
        ax.grid(axis="y", alpha=0.3)
    else:
        ax.text(0.5, 0.5, "never", transform=ax.transAxes, ha="center")
        ax.set_yticks([])


def plot_runs(ax: Any, rows: Sequence[Row]) -> None:
    runs = [row["runs"] for row in rows]
    ax.plot(runs, [row["wall_s"] for row in rows], color="#0072B2", marker="o", label="wall time")
    ax.set(xlabel="runs in the study", ylabel="wall time (s)", ylim=(0, None), xticks=runs)
    memory = ax.twinx()
    memory.plot(runs, [row["all_processes_mb"] for row in rows], color="#D55E00", marker="s", label="memory")
    memory.set(ylabel="peak memory of all processes (MB)", ylim=(0, None))
    ax.legend(handles=[*ax.lines, *memory.lines], fontsize="small")


LINES = {
    1: {"color": "#0072B2", "marker": "o", "label": "one layer"},
    2: {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "two layers"},
}


def by_layers(rows: Sequence[Row]) -> list[tuple[int, list[Row]]]:
    """Each number of layers and its rows, ascending in n."""
    return [
        (layers, sorted((row for row in rows if row["layers"] == layers), key=lambda row: row["ndims"]))
        for layers in sorted({row["layers"] for row in rows})
    ]


def answer(tables: dict[str, list[Row]]) -> str:
    """The measurements in one sentence, as far as they were made."""
    parts = []
    walls: dict[str, float] = {}
    for row in tables.get("study", []):
        walls[row["contender"]] = min(row["wall_s"], walls.get(row["contender"], math.inf))
    package = walls.get("onebit study", walls.get("package", math.nan))
    others = [f"{walls[name] / package:.3g} times as long with {name}" for name in PEERS if name in walls]
    if others and not math.isnan(package):
        parts.append(f"the whole study takes {package:.3g} s, and {', '.join(others)}")
    if "cells" in tables:
        parts += compare_losses(tables["cells"])
    if "step" in tables:
        ratios = [row["ratio"] for row in tables["step"]]
        parts.append(f"a step costs {min(ratios):.2f} to {max(ratios):.2f} times the same step by hand in torch")
    if "growth_ndims" in tables:
        parts.append(growth_in_words(tables["growth_ndims"]))
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def compare_losses(cells: Sequence[Row]) -> list[str]:
    """How the default preset's cells stand against NumPyro's, or another peer's if there is none."""
    table = {(row["contender"], row["layers"], row["ndims"]): row for row in cells}
    peer = next((name for name in ("numpyro", "torch", "pyro", "reference") if (name,) in {k[:1] for k in table}), None)
    own = [row for row in cells if row["contender"] == "package"]
    if peer is None or not own:
        return []
    pairs = [(row, table[peer, row["layers"], row["ndims"]]) for row in own]
    faster = sorted(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
    parts = [f"a cell takes {faster[0]:.2g} to {faster[-1]:.2g} times as long with {peer} as with the package"]
    two = [ours["loss"] < theirs["loss"] for ours, theirs in pairs if ours["layers"] == 2]
    one = [ours["loss"] - theirs["loss"] for ours, theirs in pairs if ours["layers"] == 1]
    if two:
        parts.append(f"the package's exact loss is lower in {sum(two)} of {len(two)} two-layer cells")
    if one:
        parts.append(f"in the one-layer cells it differs from {peer}'s by {min(one):+.1e} to {max(one):+.1e}")
    return parts


def growth_in_words(rows: Sequence[Row]) -> str:
    """From n = 1000, below which a step's time is not the decoder's, to the largest n."""
    layers, line = by_layers(rows)[-1]
    line = [row for row in line if row["ndims"] >= 1000 and row["finished"]] or line
    first, last = line[0], line[-1]
    time_ratio, memory_ratio = (last[name] / first[name] for name in ("ms_per_step", "peak_judged_mb"))
    return (
        f"with {layers} layer(s), from n = {first['ndims']} to {last['ndims']}, a step's time grows"
        f" {time_ratio:.3g}-fold and peak memory {memory_ratio:.3g}-fold, to {last['peak_judged_mb']:.0f} MB"
    )
