"""Losses: against the number of dimensions, against time, during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyro_onebit.data import MAX_NDIMS, make_data
from pyro_onebit.errors import InputError
from pyro_onebit.exact import gaussian_optimum
from pyro_onebit.plots.style import (
    DARK,
    FAMILY,
    GREY,
    LAYER_COLOURS,
    LAYER_NAMES,
    LIGHT,
    PALETTE,
    colours_of,
    family_of,
    labels_of,
    legend,
)
from pyro_onebit.studies import ORIGINAL
from pyro_onebit.training import AnyConfig

#: Reconstruction costs below this, zero included, are drawn here: a log axis must end, and so does
#: what the quadrature resolves.
FLOOR = 1e-10
#: The most points at which the optimum is computed; each is a minimisation.
_OPTIMA = 16
#: Losses closer to the entropy than this are drawn here: below, training is done, and a log axis must end.
_LEAST = 1e-5
#: The same during training, where losses are noisy estimates.
_LEAST_ESTIMATE = 1e-4


def loss_figure(table: pd.DataFrame) -> Figure:
    """Reconstruction cost per dimension, and loss, against the number of dimensions.

    A marker is a run, a line joins the medians over seeds, a colour is a family: guide, objective and so on. Hollow
    rings are the original experiment's published estimates. The optimum of a Gaussian q(z1|x) is dashed, the data's
    entropy dotted: the least loss, and the cost of a dimension without a latent.

    Arguments:
        table: A study's table, all of one `prob` and one number of bits; nats per datum.

    Raises:
        InputError: If `table` is empty, or holds several values of `prob` or `bits`.
    """
    for name in ("prob", "bits"):
        if len(values := sorted(set(table[name]))) != 1:
            raise InputError(f"the table has {len(values)} values of {name} {values}; this figure shows exactly one")
    prob, bits, entropy = (table[name].iloc[0] for name in ("prob", "bits", "entropy"))
    entropy_name = f"${'' if bits == 1 else bits}" + (r"\ln 2$" if prob == 0.5 else f"H({prob:g})$")
    families = dict(list(table.groupby(list(FAMILY), sort=True)))
    labels, colours = labels_of(families), colours_of(families)
    measured = set(zip(table["layers"], table["ndims"], strict=True))
    published = pd.DataFrame(
        [(*cell, *figures) for cell, figures in ORIGINAL.items() if cell in measured and (prob, bits) == (0.5, 1)],
        columns=["layers", "ndims", "loss", "recon_per_dim"],
    )
    best = _optima(table, prob)

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for axes, column in zip(panels, ("recon_per_dim", "loss"), strict=True):
        for family, own in families.items():
            _draw(axes, own, column, color=colours[family], ls="none", marker="o", ms=3.5)
            medians = own.groupby("ndims")[[column]].median().reset_index()
            _draw(axes, medians, column, color=colours[family], label=labels[family])
        for layers in sorted(set(published["layers"])):
            label, style = f"{LAYER_NAMES[layers]}, as published", {"ls": "none", "marker": "o", "ms": 8, "mfc": "none"}
            own = published[published["layers"] == layers]
            _draw(axes, own, column, color=LAYER_COLOURS[layers], alpha=0.5, label=label, **style)
        _draw(axes, best, column, color=DARK, ls="--", lw=1.2, label="optimum, Gaussian $q(z_1|x)$")
        axes.axhline(entropy, color=GREY, ls=":", label=entropy_name)
        axes.set(xscale="log", xlabel="dimensions $n$")
        axes.grid(color=LIGHT)
    panels[0].set(yscale="log", ylabel="reconstruction cost per dimension (nats)")
    panels[1].set(ylabel="loss (nats)")
    legend(figure, loc="outside lower center", ncols=3)
    return figure


def _draw(axes: Axes, table: pd.DataFrame, column: str, **style: Any) -> None:
    values = table[column].to_numpy(float)
    axes.plot(table["ndims"], np.maximum(values, FLOOR) if column == "recon_per_dim" else values, **style)


def _optima(table: pd.DataFrame, prob: float) -> pd.DataFrame:
    """The Gaussian's optimum where it is measured; of one bit at whole numbers over the range and a little beyond."""
    measured = {int(n): tuple(map(int, repeats.split())) for n, repeats in table[["ndims", "repeats"]].values}
    if (table["bits"] == 1).all():
        spread = np.geomspace(min(measured) / 1.3, max(measured) * 1.3, _OPTIMA).round().clip(1, MAX_NDIMS)
        measured |= {int(n): (int(n),) for n in spread}
    optima = {ndims: gaussian_optimum(make_data(measured[ndims], prob)) for ndims in sorted(measured)}
    rows = [{"ndims": n, "loss": best.loss, "recon_per_dim": best.recon / n} for n, best in optima.items()]
    return pd.DataFrame(rows)


def cost_figure(table: pd.DataFrame) -> Figure:
    """The loss above the entropy against the seconds of training, a panel for each number of dimensions.

    Arguments:
        table: A comparison's table; a marker is a run.

    Raises:
        InputError: If it is empty.
    """
    if table.empty:
        raise InputError("there is no run to draw; give at least one")
    columns = sorted(set(table["ndims"]))
    labels = labels_of(table[list(FAMILY)].itertuples(index=False, name=None), lead="guide")
    figure = Figure(figsize=(1.8 + 3.0 * len(columns), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(columns), sharey=True, squeeze=False)
    for axes, ndims in zip(panels[0], columns, strict=True):
        own = dict(list(table[table["ndims"] == ndims].groupby(list(FAMILY))))
        for i, (family, label) in enumerate(labels.items()):
            runs = own.get(family, table[:0])
            style: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "marker": "osD^vP*X"[i % 8], "ls": "none"}
            axes.plot(runs["seconds"], runs["gap_nats"].clip(lower=_LEAST), **style, label=label)
        axes.set(xscale="log", yscale="log", xlabel="seconds of training", title=f"$n = {ndims}$")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(color=LIGHT)
    panels[0, 0].set_ylabel("loss above the entropy (nats)")
    legend(figure, loc="outside right upper")
    return figure


def training_figure(histories: Sequence[tuple[AnyConfig, float, pd.DataFrame]]) -> Figure:
    """The estimated loss above a limit during training, a line for each run.

    Arguments:
        histories: Of each run its configuration, the limit in nats, and its ``history.csv``.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    families = [family_of(config) for config, _, _ in histories]
    labels, colours = labels_of(families), colours_of(sorted(set(families), key=str))
    for family, (_, limit, history) in zip(families, histories, strict=True):
        losses = (history["loss"] - limit).clip(lower=_LEAST_ESTIMATE)
        share = 100.0 * np.arange(len(losses)) / max(1, len(losses) - 1)
        axes.plot(share, losses, color=colours[family], lw=0.9, alpha=0.8, label=labels[family])
    axes.set(yscale="log", xlabel="share of the steps (%)", ylabel="estimated loss above the limit (nats)")
    axes.grid(color=LIGHT)
    legend(figure, loc="outside upper right", ncols=2)
    return figure
