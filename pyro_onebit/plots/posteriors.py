"""Densities of the top latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_onebit.errors import InputError
from pyro_onebit.exact import Truth
from pyro_onebit.plots.style import (
    DARK,
    GREY,
    IDEAL_COLOUR,
    LAYER_NAMES,
    PRIOR_COLOUR,
    codeword_colours,
    family_of,
    labels_of,
    legend,
    word_names,
)
from pyro_onebit.training import AnyConfig

#: Latents further out are not shown, unless the threshold is; a standard normal's mass there is 6e-5.
LIMIT = 4.0
#: Panels side by side.
_COLUMNS = 3


def aggregate_figure(solved: Sequence[tuple[AnyConfig, Truth]]) -> Figure:
    """The aggregate posterior q(z_top) for each number of dimensions, a panel for each family.

    Arguments:
        solved: Configurations, each with its run's densities (`exact.solve`).

    Raises:
        InputError: If there is no run.
    """
    if not solved:
        raise InputError("there is no run to draw; give at least one")
    solved = sorted(solved, key=lambda pair: pair[0].ndims)
    all_ndims = sorted({config.ndims for config, _ in solved})
    labels = labels_of(sorted({family_of(config) for config, _ in solved}, key=str))
    # The map's last colours are too light to read on white.
    colours = dict(zip(all_ndims, colormaps["viridis"](np.linspace(0.0, 0.88, len(all_ndims))), strict=True))

    columns = min(_COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(1.6 + 3.8 * columns, 0.6 + 3.0 * rows), layout="constrained")
    panels: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(labels) :]:
        axes.remove()
    for i, (axes, (family, label)) in enumerate(zip(panels.flat, labels.items(), strict=False)):
        own = [(config, truth) for config, truth in solved if family_of(config) == family]
        for config, truth in own:
            colour = colours[config.ndims]
            axes.plot(truth.z, truth.log_aggregate.exp(), color=colour, label=f"$q(z)$, $n = {config.ndims}$")
        _draw_prior(axes, *own[0], color=DARK)
        axes.set_title(label)
        if i % columns:
            axes.set_ylabel("")
    panels[0, 0].set_ylim(bottom=0.0)
    legend(figure, loc="outside right upper")
    return figure


def posterior_figure(config: AnyConfig, truth: Truth, label: str = "") -> Figure:
    """p(z), q(z) and q(z|x) of the top latent, with what q(z|x) would ideally be.

    Over each q(z|x) are drawn the learned model's exact posterior p(z|x), dashed, and an ideal
    model's, dotted: the prior on the codeword's side of the threshold, or between two, a truncated Gaussian.

    Arguments:
        config: The run's configuration.
        truth: Its densities, ``exact.solve(run.model, run.guide, run.data)``.
        label: What the title calls it, if not by its number of layers.
    """
    figure = Figure(figsize=(7.8, 4.0), layout="constrained")
    axes = figure.subplots()
    colours, names = codeword_colours(truth), word_names(config, truth)
    for codeword, colour in enumerate(colours):
        q = truth.log_q[codeword].exp()
        axes.fill_between(truth.z, q, color=colour, alpha=0.15, lw=0.0)
        axes.plot(truth.z, q, color=colour, lw=2.4, label=rf"$q(z\,|\,x{{=}}\mathbf{{{names[codeword]}}})$")
    axes.plot(truth.z, truth.log_aggregate.exp(), color=GREY, lw=2.4, label="$q(z)$")
    _draw_prior(axes, config, truth, color=PRIOR_COLOUR)
    for log_posterior in truth.log_posterior:
        axes.plot(truth.z, log_posterior.exp(), color=DARK, ls="--", lw=1.0, label=r"exact $p(z\,|\,x)$")
    for z, density in _truncated_normals(truth):
        axes.plot(z, density, color=IDEAL_COLOUR, ls=":", lw=2.0, label="truncated Gaussian")
    axes.set_title(f"{label or LAYER_NAMES[config.layers]}, $n = {config.ndims}$")
    axes.set_ylim(bottom=0.0)
    legend(figure, loc="outside right upper")
    return figure


def comparison_figure(truths: Sequence[tuple[AnyConfig, Truth]]) -> Figure:
    """q(z_top|x) over the learned model's exact posterior; a row for each family, a column for each ndims.

    Arguments:
        truths: Configurations, each with its run's densities.

    Raises:
        InputError: If there is none.
    """
    if not truths:
        raise InputError("there is no run to draw; give at least one")
    labels = labels_of((family_of(config) for config, _ in truths), lead="guide")
    rows = list(labels)
    columns = sorted({config.ndims for config, _ in truths})
    figure = Figure(figsize=(1.2 + 2.9 * len(columns), 0.9 + 1.5 * len(rows)), layout="constrained")
    panels: Any = figure.subplots(len(rows), len(columns), sharex=True, squeeze=False)
    for config, truth in truths:
        axes = panels[rows.index(family_of(config)), columns.index(config.ndims)]
        colours, names = codeword_colours(truth), word_names(config, truth)
        for codeword, colour in enumerate(colours):
            q = truth.log_q[codeword].exp()
            axes.fill_between(truth.z, q, color=colour, alpha=0.15, lw=0.0)
            axes.plot(truth.z, q, color=colour, lw=1.8, label=rf"$q(z\,|\,x{{=}}\mathbf{{{names[codeword]}}})$")
            exact = truth.log_posterior[codeword].exp()
            axes.plot(truth.z, exact, color=DARK, ls="--", lw=0.9, label=r"exact $p(z\,|\,x)$ of the learned model")
        # A density may have a needle next to the threshold; the rest is what there is to see.
        axes.set(xlim=(-LIMIT, LIMIT), ylim=(0.0, min(2.5, 1.1 * float(truth.log_q.exp().max()))))
    for row, label in enumerate(labels.values()):
        panels[row, 0].set_ylabel(label)
    for column, ndims in enumerate(columns):
        panels[0, column].set_title(f"$n = {ndims}$", fontsize=11)
        panels[-1, column].set_xlabel(r"$z_\mathrm{top}$")
    legend(figure, loc="outside lower center", ncols=3 if len(columns) > 1 else 1)
    return figure


def _draw_prior(axes: Axes, config: AnyConfig, truth: Truth, color: str) -> None:
    """p(z), the axes' names, and limits that show it and the threshold."""
    axes.plot(truth.z, truth.log_prior.exp(), color=color, ls="--", label="$p(z)$")
    limit = max(LIMIT, float(truth.thresholds.abs().max()) + 1.0)
    axes.set(xlabel=f"$z_{config.layers}$", ylabel="density", xlim=(-limit, limit))


def _truncated_normals(truth: Truth) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each codeword's (z, density), outwards from a cut: the prior between its thresholds, as q has the sides."""
    curves, cuts = [], truth.thresholds.numpy()
    for place, log_density in zip(truth.order.argsort().tolist(), truth.log_truncated, strict=True):
        own = torch.isfinite(log_density)
        z, density = truth.z[own].numpy(), log_density[own].exp().numpy()
        # A point of density 0 draws a cut.
        if place > 0:
            z, density = np.append(cuts[place - 1], z), np.append(0.0, density)
        if place < len(cuts):
            z, density = np.append(z, cuts[place]), np.append(density, 0.0)
        curves.append((z, density) if place > 0 else (z[::-1], density[::-1]))
    return curves
