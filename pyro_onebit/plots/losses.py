"""Losses: against the number of dimensions, against time, during training."""

from __future__ import annotations

import itertools
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
    MARKERS,
    colours_of,
    family_of,
    labels_of,
    legend,
    ndims_axis,
)
from pyro_onebit.studies import with_derived
from pyro_onebit.training import AnyConfig

#: Smaller values, zero included, are drawn here: a log axis must end, and so does what the quadrature resolves.
FLOORS = {"recon_per_dim": 1e-10, "above": 1e-8}
#: Up to here the limit is drawn at every number of dimensions.
_CORNER = range(1, 6)
#: The most points at which the optimum is computed; each is a minimisation.
_OPTIMA = 16
#: Losses closer to the entropy than this are drawn here: below, training is done, and a log axis must end.
_LEAST = 1e-5
#: The same during training, where losses are noisy estimates.
_LEAST_ESTIMATE = 1e-4


def information_figure(table: pd.DataFrame) -> Figure:
    """What the latent carries, and what that costs, against the number of dimensions.

    Left I_q(x; z) of the top latent, right the loss. A marker is a run, its colour and shape a family: guide, objective
    and so on. Crosses are the original experiment's published estimates. What the best decoder does with the best
    Gaussian q(z1|x) is dashed, the data's entropy dotted.

    Arguments:
        table: A study's table, all of one `prob` and one number of bits; nats per datum.

    Raises:
        InputError: If `table` is empty, or holds several values of `prob` or `bits`.
    """
    # Nothing joins the markers: between two numbers of dimensions a line would cut off the limit's corner.
    figure, panels = _against_ndims(table, ("mutual_information", "loss"), joined=False)
    panels[0].set(ylabel="$I(x; z)$ (nats)", title="what the latent carries", ylim=(-0.03, None))
    panels[1].set(ylabel="loss (nats)", title="what a datum costs")
    return figure


def loss_figure(table: pd.DataFrame) -> Figure:
    """What training leaves above the limit, and the reconstruction's cost, against the number of dimensions.

    Left the loss above the lowest of the guide's family, where that is known; right the reconstruction's cost per
    dimension. A line joins the medians over seeds; otherwise as in `information_figure`, without the entropy.

    Arguments:
        table: A study's table, all of one `prob` and one number of bits; nats per datum.

    Raises:
        InputError: If `table` is empty, or holds several values of `prob` or `bits`.
    """
    figure, panels = _against_ndims(table, ("above", "recon_per_dim"), joined=True)
    panels[0].set(ylabel="loss above the family's limit (nats)", title="what training leaves")
    panels[1].set(ylabel="reconstruction per dimension (nats)", title="what the latent does not say")
    return figure


def _against_ndims(table: pd.DataFrame, columns: Sequence[str], *, joined: bool) -> tuple[Figure, Any]:
    """Two columns, a panel for each: with lines that join the medians over seeds, or else with the entropy."""
    prob, bits = _data_of(table)
    best, table = _optima(table, prob), with_derived(table)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for axes, column in zip(panels, columns, strict=True):
        if not joined:
            name = f"${'' if bits == 1 else bits}" + (r"\ln 2$" if prob == 0.5 else f"H({prob:g})$")
            axes.axhline(table["entropy"].iloc[0], color=GREY, ls=":", label=name)
        if column in best:
            axes.plot(best["ndims"], best[column], color=DARK, ls="--", lw=1.2, label="limit, Gaussian $q(z_1|x)$")
        for family, style in _styles(sorted(set(_families(table)), key=str)).items():
            own = _of(table, family)
            _draw(axes, own, column, **style, ls="none", ms=4 if joined else 5)
            if joined:
                medians = own.groupby("ndims")[[column]].median().reset_index()
                _draw(axes, medians, column, color=style["color"], lw=1.0)
        _draw_published(axes, table, column)
        ndims_axis(axes)
        # A family's limit may not be known.
        if joined and table[column].notna().any():
            axes.set(yscale="log")
    legend(figure, loc="outside lower center", ncols=3)
    return figure, panels


def _data_of(table: pd.DataFrame) -> tuple[float, int]:
    """The one `prob` and the one number of bits that a table has."""
    for name in ("prob", "bits"):
        if len(values := sorted(set(table[name]))) != 1:
            raise InputError(f"the table has {len(values)} values of {name} {values}; this figure shows exactly one")
    return float(table["prob"].iloc[0]), int(table["bits"].iloc[0])


def _families(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Each run's family."""
    return list(table[list(FAMILY)].itertuples(index=False, name=None))


def _of(table: pd.DataFrame, family: tuple[Any, ...]) -> pd.DataFrame:
    return table[[own == family for own in _families(table)]]


def _styles(families: Sequence[tuple[Any, ...]], lead: str = "layers") -> dict[tuple[Any, ...], dict[str, Any]]:
    """How each family is drawn."""
    labels, colours = labels_of(families, lead), colours_of(families)
    return {
        family: {"color": colours[family], "marker": MARKERS[i % len(MARKERS)], "label": label}
        for i, (family, label) in enumerate(labels.items())
    }


def _draw(axes: Axes, table: pd.DataFrame, column: str, **style: Any) -> None:
    values = table[column].to_numpy(float)
    axes.plot(table["ndims"], np.maximum(values, FLOORS.get(column, -np.inf)), **style)


def _draw_published(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """What the original experiment published of a column, for the cells that the table has."""
    if name := {"loss": "original", "recon_per_dim": "original_recon"}.get(column):
        known = table.dropna(subset=name).drop_duplicates(["layers", "ndims"])
        for layers, colour in LAYER_COLOURS.items():
            own = known[known["layers"] == layers]
            if len(own):
                style: dict[str, Any] = {"ls": "none", "marker": "x+"[layers - 1], "ms": 9, "color": colour}
                axes.plot(own["ndims"], own[name], **style, label=f"{LAYER_NAMES[layers]}, as published")


def _optima(table: pd.DataFrame, prob: float) -> pd.DataFrame:
    """The Gaussian's optimum where it is measured; of one bit at whole numbers in between, all small ones."""
    measured = {int(n): tuple(map(int, repeats.split())) for n, repeats in table[["ndims", "repeats"]].values}
    if (table["bits"] == 1).all():
        least, most = min(measured), max(measured)
        spread = np.geomspace(least, most, _OPTIMA).round().clip(1, MAX_NDIMS)
        measured |= {int(n): (int(n),) for n in (*spread, *(n for n in _CORNER if least <= n <= most))}
    optima = {ndims: gaussian_optimum(make_data(measured[ndims], prob)) for ndims in sorted(measured)}
    entropy = float(table["entropy"].iloc[0])
    rows = [{"ndims": n, "loss": best.loss, "recon_per_dim": best.recon / n} for n, best in optima.items()]
    if (table["bits"] == 1).all():
        rows = [{**row, "mutual_information": entropy - row["recon_per_dim"]} for row in rows]
    return pd.DataFrame(rows)


def cost_figure(table: pd.DataFrame) -> Figure:
    """The loss above the entropy against the seconds of training, a panel for each number of dimensions.

    Arguments:
        table: A comparison's table; a marker is a run.

    Raises:
        InputError: If it is empty.
    """
    columns, styles = sorted(set(table["ndims"])), _styles(_families(table), lead="guide")
    figure = Figure(figsize=(1.8 + 3.0 * len(columns), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(columns), sharey=True, squeeze=False)
    for axes, ndims in zip(panels[0], columns, strict=True):
        for family, style in styles.items():
            runs = _of(table[table["ndims"] == ndims], family)
            axes.plot(runs["seconds"], runs["gap_nats"].clip(lower=_LEAST), **style, ls="none")
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
    dashes = dict(zip(colours, itertools.cycle(("-", "--", ":", "-.")), strict=False))
    for family, (_, limit, history) in zip(families, histories, strict=True):
        losses = (history["loss"] - limit).clip(lower=_LEAST_ESTIMATE)
        share = 100.0 * np.arange(len(losses)) / max(1, len(losses) - 1)
        look: dict[str, Any] = {"color": colours[family], "ls": dashes[family], "lw": 1.1, "alpha": 0.8}
        axes.plot(share, losses, **look, label=labels[family])
    axes.set(yscale="log", xlabel="share of the steps (%)", ylabel="estimated loss above the limit (nats)")
    axes.grid(color=LIGHT)
    legend(figure, loc="outside upper right", ncols=2)
    return figure
