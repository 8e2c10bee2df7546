"""What was measured, as tables, a figure and a sentence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from peers.measure import CONTENDERS, MARGIN, PEERS, Row
from pyro_onebit.plots import LAYER_COLOURS, LAYER_NAMES, PALETTE, ndims_axis

CELL = ["layers", "ndims"]
TITLES = {
    "cells": f"Each cell, medians (reached_s: until the exact loss is within {MARGIN} of the optimum)",
    "study": "The whole study, one call, wall time with processes' start and imports",
    "step": "A step of the default preset, and the same step by hand in torch",
    "growth_ndims": "Time and memory against the number of dimensions, default preset",
    "growth_runs": "Time and memory against the number of runs in a study, default preset",
}
#: The figure's panels: of a table a column, what it is, and whether its axis is logarithmic.
PANELS = [
    ("cells", "seconds", "training time (s)", True),
    ("cells", "reached_s", f"time to optimum + {MARGIN} nat (s); gap: never", True),
    ("cells", "excess", "exact loss above optimum (nats per datum)", True),
    ("study", "wall_s", "wall time of the whole study (s)", False),
    ("step", "ratio", "time of a step ÷ the same by hand in torch", False),
    ("growth_ndims", "ms_per_step", "time of a step (ms)", True),
    ("growth_ndims", "peak_judged_mb", "peak memory of a run (MB)", True),
    ("growth_runs", "wall_s", "wall time of a study (s)", False),
    ("growth_runs", "all_processes_mb", "peak memory of all processes (MB)", False),
]
COLOURS = dict(zip([*CONTENDERS, "onebit study"], PALETTE, strict=False))
MARKERS = dict(zip(CONTENDERS, "os^Dv", strict=True))
#: How far two ways to compute the same losses may be apart, relatively: they are float32.
SAME_LOSS = 1e-5


def cells_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds, of each contender's numbers of threads the one that takes the least time."""
    groups = runs.drop(columns="seed").groupby(["contender", *CELL, "threads"], sort=False)
    arrived = groups["reached_s"].agg(lambda times: f"{np.isfinite(times).sum()}/{len(times)}")
    medians = groups.median().astype({"steps": int}).assign(arrived=arrived).reset_index()
    return medians.loc[medians.groupby(["contender", *CELL], sort=False)["seconds"].idxmin()]


def study_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Medians over the repeats; the command has its wall time alone."""
    return pd.DataFrame(rows).groupby(["contender", "processes", "threads"], sort=False).median().reset_index()


def step_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Medians over seeds, and the largest difference of first losses with equal seeds, relative where above 1 nat.

    Not of the later ones: SOAP magnifies rounding from its first update on, also between equal programs.
    """
    wide = pd.DataFrame(rows).pivot(index=[*CELL, "seed"], columns="contender", values=["ms_per_step", "first_loss"])
    ms, loss = wide["ms_per_step"].groupby(level=CELL).median(), wide["first_loss"]
    difference = (loss["package"] - loss["torch"]).abs() / loss["package"].abs().clip(lower=1.0)
    table = ms.rename(columns={"package": "package_ms", "torch": "by_hand_ms"})
    largest = difference.groupby(level=CELL).max()
    return table.assign(ratio=ms["package"] / ms["torch"], loss_difference=largest).reset_index()


def plot(tables: dict[str, pd.DataFrame]) -> Figure:
    """A panel for each question that was asked."""
    panels = [panel for panel in PANELS if panel[0] in tables]
    columns, rows = min(3, len(panels)), -(-len(panels) // 3)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    for i, (name, column, label, logarithmic) in enumerate(panels, 1):
        ax = figure.add_subplot(rows, columns, i, ylabel=label)
        {"cells": plot_cells, "study": plot_study}.get(name, plot_lines)(ax, tables[name], column)
        ax.grid(axis="y", alpha=0.3)
        if not np.isfinite(tables[name][column]).any():
            ax.text(0.5, 0.5, "never", transform=ax.transAxes, ha="center")
            ax.set_yticks([])
        elif logarithmic:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            ax.set_ylim(0)
    return figure


def plot_cells(ax: Axes, table: pd.DataFrame, column: str) -> None:
    # An excess of nothing, but for quadrature, has its place at the bottom of the logarithmic axis.
    heights = table.replace(np.inf, np.nan).pivot(index=CELL, columns="contender", values=column).clip(lower=1e-6)
    for i, contender in enumerate(table["contender"].unique()):
        # Side by side, so that equal values do not hide each other.
        places = np.arange(len(heights)) + 0.12 * (i - (len(heights.columns) - 1) / 2)
        ax.plot(places, heights[contender], MARKERS[contender], color=COLOURS[contender], label=contender)
    ax.set_xticks(range(len(heights)), [f"{layers}L\n{ndims}" for layers, ndims in heights.index])
    ax.set(xlabel="layers (L), and dimensions n", xlim=(-0.5, len(heights) - 0.5))
    ax.legend(fontsize="small")


def plot_study(ax: Axes, table: pd.DataFrame, column: str) -> None:
    ways = ["\n".join([*row.contender.split(), f"{row.processes} × {row.threads}"]) for row in table.itertuples()]
    ax.bar_label(ax.bar(ways, table[column], color=table["contender"].map(COLOURS)), fmt="%.3g")
    ax.tick_params("x", labelsize="x-small")
    ax.margins(y=0.1)
    ax.set_xlabel("contender, and processes × threads")


def plot_lines(ax: Axes, table: pd.DataFrame, column: str) -> None:
    x = "runs" if "runs" in table else "ndims"
    for layers, line in table.sort_values(x).groupby("layers"):
        style = {1: "o-", 2: "s--"}[layers]
        ax.plot(line[x], line[column], style, color=LAYER_COLOURS[layers], label=LAYER_NAMES[layers])
    if x == "runs":
        ax.set(xlabel="runs in the study", xticks=table[x])
    else:
        ndims_axis(ax)
    if column == "ratio":
        ax.axhline(1.5, color="black", linestyle=":", label="goal")
    ax.legend(fontsize="small")


def answer(tables: dict[str, pd.DataFrame]) -> str:
    """The measurements in one sentence, as far as they were made."""
    parts = []
    if "study" in tables:
        walls = tables["study"].groupby("contender")["wall_s"].min()
        if (own := walls.get("onebit study", walls.get("package"))) is not None:
            others = [f", {walls[name] / own:.3g} times as long with {name}" for name in PEERS if name in walls]
            parts.append(f"the whole study takes {own:.3g} s{''.join(others)}")
    if "cells" in tables:
        parts += compare_cells(tables["cells"])
    if "step" in tables:
        ratio, difference = tables["step"]["ratio"], tables["step"]["loss_difference"].max()
        parts.append(f"a step costs {ratio.min():.2f} to {ratio.max():.2f} times the same step by hand in torch")
        if difference > SAME_LOSS:
            parts.append(f"but by hand it is another step, for the losses differ by {difference:.1e}")
    if "growth_ndims" in tables:
        # From n = 1000, below which a step's time is not the decoder's, to the largest n.
        table = tables["growth_ndims"].sort_values(CELL).query("layers == layers.max()")
        large = table.query("ndims >= 1000 and finished")
        first, last = (large if len(large) else table).iloc[[0, -1]].to_dict("records")
        longer, larger = (last[column] / first[column] for column in ("ms_per_step", "peak_judged_mb"))
        parts.append(
            f"with {last['layers']} layer(s), from n = {first['ndims']} to {last['ndims']}, a step's time grows"
            f" {longer:.3g}-fold and peak memory {larger:.3g}-fold, to {last['peak_judged_mb']:.0f} MB"
        )
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def compare_cells(cells: pd.DataFrame) -> list[str]:
    """How the default preset's cells stand against NumPyro's, or another peer's if there is none."""
    seconds, loss = (cells.pivot(index=CELL, columns="contender", values=name) for name in ("seconds", "loss"))
    peer = next((name for name in ("numpyro", "torch", "pyro", "reference") if name in loss), None)
    if peer is None or "package" not in loss:
        return []
    slower = seconds[peer] / seconds["package"]
    parts = [f"a cell takes {slower.min():.2g} to {slower.max():.2g} times as long with {peer} as with the package"]
    difference = loss["package"] - loss[peer]
    if len(two := difference[difference.index.get_level_values("layers") == 2]):
        parts.append(f"the package's exact loss is lower in {(two < 0).sum()} of {len(two)} two-layer cells")
    if len(one := difference[difference.index.get_level_values("layers") == 1]):
        parts.append(f"in the one-layer cells it differs from {peer}'s by {one.min():+.1e} to {one.max():+.1e}")
    return parts
