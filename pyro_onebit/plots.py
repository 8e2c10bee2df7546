"""Figures: each a function of tables or runs that returns a matplotlib Figure."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyro_onebit.compare import Comparison
from pyro_onebit.config import Config
from pyro_onebit.data import MAX_NDIMS, InputError, ideal_threshold
from pyro_onebit.exact import Truth
from pyro_onebit.files import write_whole
from pyro_onebit.optimum import gaussian_optimum
from pyro_onebit.study import ORIGINAL
from pyro_onebit.training import Run

__all__ = [
    "CODEWORD_COLOURS",
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "aggregate_figure",
    "comparison_figure",
    "cost_figure",
    "legend",
    "loss_figure",
    "png",
    "posterior_figure",
    "save",
    "save_comparison_figures",
    "save_study_figures",
]

#: Reconstruction costs below this, zero included, are drawn here: a log axis must end, and so does
#: what the quadrature resolves.
FLOOR = 1e-10
#: Latents further out are not shown, unless the threshold is; a standard normal's mass there is 6e-5.
LIMIT = 4.0
#: The most points at which the optimum is computed; each is a minimisation.
_OPTIMA = 16
_DPI = 150
#: Losses closer to the entropy than this are drawn here: below, training is done, and a log axis must end.
_LEAST = 1e-5

# From Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
LAYER_COLOURS = {1: _BLUE, 2: _VERMILION}
CODEWORD_COLOURS = ("#009E73", "#CC79A7")
_DARK, _GREY = "0.1", "0.6"
LAYER_NAMES = {1: "one layer", 2: "two layers"}


def loss_figure(rows: Sequence[Mapping[str, Any]], original: Sequence[Mapping[str, Any]] = ()) -> Figure:
    """Reconstruction cost per dimension, and loss, against the number of dimensions.

    A marker is a run, a line joins the medians over seeds. The optimum of a Gaussian q(z1|x) is
    dashed, the data's entropy dotted: the least loss, and the cost of a dimension without a latent.

    Arguments:
        rows: The rows of ``results.csv``, as numbers, all of one `prob`; nats per datum.
        original: The original's published ``layers, ndims, loss, recon_per_dim``, nats; those whose
            layers and ndims occur in `rows` are drawn, hollow.

    Raises:
        InputError: If `rows` is empty, or holds several values of `prob`.
    """
    probs = sorted({row["prob"] for row in rows})
    if len(probs) != 1:
        raise InputError(f"rows have {len(probs)} values of prob {probs}; this figure shows exactly one")
    [prob], entropy = probs, rows[0]["entropy"]
    entropy_name = r"$\ln 2$" if prob == 0.5 else f"$H({prob:g})$"
    measured = {(row["layers"], row["ndims"]) for row in rows}
    best = _optimum_rows([ndims for _, ndims in measured], prob)

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for axes, column in zip(panels, ("recon_per_dim", "loss"), strict=True):
        for layers in sorted({layers for layers, _ in measured}):
            style: dict[str, Any] = {"color": LAYER_COLOURS[layers], "ls": "none", "marker": "o"}
            own = [row for row in rows if row["layers"] == layers]
            published = [row for row in original if row["layers"] == layers and (layers, row["ndims"]) in measured]
            _draw(axes, own, column, **style, ms=3.5)
            medians = [
                {"ndims": ndims, column: np.median([row[column] for row in own if row["ndims"] == ndims])}
                for ndims in sorted({row["ndims"] for row in own})
            ]
            _draw(axes, medians, column, color=LAYER_COLOURS[layers], label=LAYER_NAMES[layers])
            if published:
                label = f"{LAYER_NAMES[layers]}, as published"
                _draw(axes, published, column, **style, ms=8, mfc="none", alpha=0.5, label=label)
        _draw(axes, best, column, color=_DARK, ls="--", lw=1.2, label="optimum, Gaussian $q(z_1|x)$")
        axes.axhline(entropy, color=_GREY, ls=":", label=entropy_name)
        axes.set(xscale="log", xlabel="dimensions $n$")
        axes.grid(color="0.93")
    panels[0].set(yscale="log", ylabel="reconstruction cost per dimension (nats)")
    panels[1].set(ylabel="loss (nats)")
    legend(figure, loc="outside lower center", ncols=3)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str, **style: Any) -> None:
    values = np.array([row[column] for row in rows], dtype=float)
    if column == "recon_per_dim":
        values = np.maximum(values, FLOOR)
    axes.plot([row["ndims"] for row in rows], values, **style)


def _optimum_rows(measured: Sequence[int], prob: float) -> list[dict[str, float]]:
    """The one-layer optimum at whole numbers over the measured range and a little beyond."""
    spread = np.geomspace(min(measured) / 1.3, max(measured) * 1.3, _OPTIMA).round().clip(1, MAX_NDIMS)
    optima = {ndims: gaussian_optimum(ndims, prob) for ndims in sorted({int(n) for n in spread} | set(measured))}
    return [{"ndims": n, "loss": best.loss, "recon_per_dim": best.recon / n} for n, best in optima.items()]


def aggregate_figure(solved: Sequence[tuple[Run, Truth]]) -> Figure:
    """The aggregate posterior q(z_top) for each number of dimensions, one panel a number of layers.

    Arguments:
        solved: Runs, each with its ``exact.solve(run.model, run.guide, run.data)``.

    Raises:
        InputError: If there is no run.
    """
    if not solved:
        raise InputError("there is no run to draw; give at least one")
    solved = sorted(solved, key=lambda pair: pair[0].data.ndims)
    all_ndims = sorted({run.data.ndims for run, _ in solved})
    all_layers = sorted({run.config.layers for run, _ in solved})
    # The map's last colours are too light to read on white.
    colours = dict(zip(all_ndims, colormaps["viridis"](np.linspace(0.0, 0.88, len(all_ndims))), strict=True))

    figure = Figure(figsize=(1.6 + 3.8 * len(all_layers), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(all_layers), sharey=True, squeeze=False)
    for axes, layers in zip(panels[0], all_layers, strict=True):
        own = [(run, truth) for run, truth in solved if run.config.layers == layers]
        for run, truth in own:
            label = f"$q(z)$, $n = {run.data.ndims}$"
            axes.plot(truth.z, truth.log_aggregate.exp(), color=colours[run.data.ndims], label=label)
        _draw_prior(axes, *own[0], color=_DARK)
        axes.set_title(LAYER_NAMES[layers])
        axes.label_outer()
    panels[0, 0].set_ylim(bottom=0.0)
    legend(figure, loc="outside right upper")
    return figure


def posterior_figure(run: Run, truth: Truth) -> Figure:
    """p(z), q(z) and q(z|x) of the top latent, with what q(z|x) would ideally be.

    Over each q(z|x) are drawn the learned model's exact posterior p(z|x), dashed, and an ideal
    model's, dotted: the prior on the codeword's side of the threshold, a truncated Gaussian.

    Arguments:
        run: The run.
        truth: Its ``exact.solve(run.model, run.guide, run.data)``.
    """
    figure = Figure(figsize=(7.8, 4.0), layout="constrained")
    axes = figure.subplots()
    for codeword, colour in enumerate(CODEWORD_COLOURS):
        q = truth.log_q[codeword].exp()
        axes.fill_between(truth.z, q, color=colour, alpha=0.15, lw=0.0)
        axes.plot(truth.z, q, color=colour, lw=2.4, label=rf"$q(z\,|\,x{{=}}\mathbf{{{codeword}}})$")
    axes.plot(truth.z, truth.log_aggregate.exp(), color=_GREY, lw=2.4, label="$q(z)$")
    _draw_prior(axes, run, truth, color=_BLUE)
    for log_posterior in truth.log_posterior:
        axes.plot(truth.z, log_posterior.exp(), color=_DARK, ls="--", lw=1.0, label=r"exact $p(z\,|\,x)$")
    for z, density in _truncated_normals(truth):
        axes.plot(z, density, color=_VERMILION, ls=":", lw=2.0, label="truncated Gaussian")
    axes.set_title(f"{LAYER_NAMES[run.config.layers]}, $n = {run.data.ndims}$")
    axes.set_ylim(bottom=0.0)
    legend(figure, loc="outside right upper")
    return figure


def comparison_figure(truths: Sequence[tuple[Config, Truth]]) -> Figure:
    """q(z_top|x) over the learned model's exact posterior; a row a guide and objective, a column an ndims.

    Arguments:
        truths: Configurations, each with its run's densities.

    Raises:
        InputError: If there is none.
    """
    if not truths:
        raise InputError("there is no run to draw; give at least one")
    names = list(dict.fromkeys((config.guide, config.objective) for config, _ in truths))
    several = len({guide for guide, _ in names}) < len(names)
    columns = sorted({config.ndims for config, _ in truths})
    figure = Figure(figsize=(1.2 + 2.9 * len(columns), 0.9 + 1.5 * len(names)), layout="constrained")
    panels: Any = figure.subplots(len(names), len(columns), sharex=True, squeeze=False)
    for config, truth in truths:
        axes = panels[names.index((config.guide, config.objective)), columns.index(config.ndims)]
        for codeword, colour in enumerate(CODEWORD_COLOURS):
            q = truth.log_q[codeword].exp()
            axes.fill_between(truth.z, q, color=colour, alpha=0.15, lw=0.0)
            axes.plot(truth.z, q, color=colour, lw=1.8, label=rf"$q(z\,|\,x{{=}}\mathbf{{{codeword}}})$")
            exact = truth.log_posterior[codeword].exp()
            axes.plot(truth.z, exact, color=_DARK, ls="--", lw=0.9, label=r"exact $p(z\,|\,x)$ of the learned model")
        # A density may have a needle next to the threshold; the rest is what there is to see.
        axes.set(xlim=(-LIMIT, LIMIT), ylim=(0.0, min(2.5, 1.1 * float(truth.log_q.exp().max()))))
    for row, name in enumerate(names):
        panels[row, 0].set_ylabel(_named(*name, several))
    for column, ndims in enumerate(columns):
        panels[0, column].set_title(f"$n = {ndims}$", fontsize=11)
        panels[-1, column].set_xlabel(r"$z_\mathrm{top}$")
    legend(figure, loc="outside lower center", ncols=3 if len(columns) > 1 else 1)
    return figure


def cost_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss above the entropy against the seconds of training, a panel a number of dimensions, a marker a run.

    Arguments:
        rows: The rows of ``comparison.csv``.

    Raises:
        InputError: If there is none.
    """
    if not rows:
        raise InputError("there is no run to draw; give at least one")
    columns = sorted({row["ndims"] for row in rows})
    names = list(dict.fromkeys((row["guide"], row["objective"]) for row in rows))
    several = len({guide for guide, _ in names}) < len(names)
    figure = Figure(figsize=(1.8 + 3.0 * len(columns), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(columns), sharey=True, squeeze=False)
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axes, ndims in zip(panels[0], columns, strict=True):
        for i, (guide, objective) in enumerate(names):
            own = [r for r in rows if (r["guide"], r["objective"], r["ndims"]) == (guide, objective, ndims)]
            label = _named(guide, objective, several)
            style: dict[str, Any] = {"color": colours[i % 10], "marker": "osD^vP*X"[i % 8], "ls": "none"}
            axes.plot([r["seconds"] for r in own], [max(r["gap_nats"], _LEAST) for r in own], **style, label=label)
        axes.set(xscale="log", yscale="log", xlabel="seconds of training", title=f"$n = {ndims}$")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(color="0.93")
    panels[0, 0].set_ylabel("loss above the entropy (nats)")
    legend(figure, loc="outside right upper")
    return figure


def save_comparison_figures(comparison: Comparison, directory: Path) -> list[Path]:
    """Write a comparison's figures: the posteriors, a file an objective, and the losses against time.

    Arguments:
        comparison: With no row, there is nothing to draw.
        directory: Where the PNG files go.

    Returns:
        The files' paths.

    Raises:
        InputError: If the directory cannot be written.
    """
    if not comparison.rows:
        return []
    figures = {"loss-seconds": cost_figure(comparison.rows), "posteriors": comparison_figure(comparison.truths)}
    return _save_all(figures, directory)


def _save_all(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    paths = [directory / f"{name}.png" for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        save(figure, path)
    return paths


def _named(guide: str | None, objective: str | None, several: bool) -> str:
    """What a guide, trained with one of perhaps several objectives, is called."""
    return f"{guide}, {objective}" if several else str(guide)


def _draw_prior(axes: Axes, run: Run, truth: Truth, color: str) -> None:
    """p(z), the axes' names, and limits that show it and the threshold."""
    axes.plot(truth.z, truth.log_prior.exp(), color=color, ls="--", label="$p(z)$")
    limit = max(LIMIT, abs(ideal_threshold(run.data.prob)) + 1.0)
    axes.set(xlabel=f"$z_{run.config.layers}$", ylabel="density", xlim=(-limit, limit))


def _truncated_normals(truth: Truth) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each codeword's (z, density): N(0, 1) on its side of the threshold, as q has the sides."""
    curves = []
    for outward, share in zip((-truth.side, truth.side), truth.probs.tolist(), strict=True):
        z = truth.truncation + outward * np.linspace(0.0, abs(truth.truncation) + 2.0 * LIMIT, 400)
        density = np.exp(-0.5 * z**2) / (share * math.sqrt(2.0 * math.pi))
        # A first point, of density 0, draws the cut.
        curves.append((np.append(truth.truncation, z), np.append(0.0, density)))
    return curves


def legend(figure: Figure, **kwargs: Any) -> None:
    """One legend for all panels, each label once."""
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), frameon=False, **kwargs)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file's content."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        InputError: If the directory cannot be written.
    """
    write_whole(path, png(figure))


def save_study_figures(
    rows: Sequence[Mapping[str, Any]], solved: Sequence[tuple[Run, Truth]], directory: Path
) -> list[Path]:
    """Write a study's figures: losses, aggregates, and posteriors at each model's largest ndims.

    Arguments:
        rows: The rows of ``results.csv``; with none, there is nothing to draw.
        solved: A run of each number of layers and dimensions, and its densities.
        directory: Where the PNG files go.

    Returns:
        The files' paths.

    Raises:
        InputError: If the directory cannot be written.
    """
    if not rows:
        return []
    original = [
        {"layers": layers, "ndims": ndims, "loss": loss, "recon_per_dim": recon}
        for (layers, ndims), (loss, recon) in ORIGINAL.items()
        if rows[0]["prob"] == 0.5  # the original has no other
    ]
    figures = {"loss": loss_figure(rows, original), "aggregate": aggregate_figure(solved)}
    largest = {run.config.layers: (run, truth) for run, truth in sorted(solved, key=lambda pair: pair[0].data.ndims)}
    for layers, (run, truth) in sorted(largest.items()):
        figures[f"posterior-layers{layers}-ndims{run.data.ndims}"] = posterior_figure(run, truth)
    return _save_all(figures, directory)
