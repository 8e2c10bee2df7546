"""Densities of the top latent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_onebit.exact import Truth
from pyro_onebit.plots.style import DARK, GREY, LIGHT, codeword_colours, family_of, labels_of, legend
from pyro_onebit.training import AnyConfig

#: Latents further out are not shown, unless the threshold is; a standard normal's mass there is 6e-5.
_LIMIT = 4.0
#: Panels side by side.
_COLUMNS = 3


def aggregate_figure(solved: Sequence[tuple[AnyConfig, Truth]]) -> Figure:
    """The aggregate posterior q(z_top) for each number of dimensions, a panel for each family.

    Arguments:
        solved: Configurations, each with its run's densities (`exact.solve`).

    Raises:
        InputError: If there is no run.
    """
    solved = sorted(solved, key=lambda pair: pair[0].ndims)
    all_ndims = sorted({config.ndims for config, _ in solved})
    labels = labels_of(sorted({family_of(config) for config, _ in solved}, key=str))
    # The map's last colours are too light to read on white.
    colours = dict(zip(all_ndims, colormaps["viridis"](np.linspace(0.0, 0.88, len(all_ndims))), strict=True))

    figure, panels = _panels(len(labels), 4.2, ratios=(3.0, 1.3))
    for (density, ratio), (family, label) in zip(panels, labels.items(), strict=True):
        own = [(config, truth) for config, truth in solved if family_of(config) == family]
        for config, truth in own:
            style = {"color": colours[config.ndims], "label": f"$q(z)$, $n = {config.ndims}$"}
            density.plot(*_curve(truth, truth.log_aggregate), **style)
            ratio.plot(*_curve(truth, truth.log_aggregate - truth.log_prior), **style)
        _draw_prior(density, *own[0])
        ratio.axhline(1.0, color=GREY, lw=1.0)
        ratio.set(ylim=(0.0, 2.0), xlim=density.get_xlim(), xlabel=density.get_xlabel())
        density.set(xlabel="", title=label)
        if density.get_ylabel():
            ratio.set_ylabel("$q(z) / p(z)$")
    _start_at_zero(density for density, _ in panels)
    legend(figure, loc="outside right upper")
    return figure


def posterior_figure(solved: Sequence[tuple[AnyConfig, Truth]]) -> Figure:
    """What guides say of the top latent, beside the truth; a panel for each run, and all on one axis.

    Filled is q(z|x) of each codeword, dotted the learned model's exact posterior p(z|x), dashed the aggregate q(z), and
    grey the prior. A title says how far q(z|x) is from the posterior: E KL(q(z|x) ‖ p(z|x)), the nats that were spent
    on the latent and do not come back.

    Arguments:
        solved: Configurations, each with its run's densities (`exact.solve`).

    Raises:
        InputError: If there is no run.
    """
    labels = labels_of(family_of(config) for config, _ in solved)
    figure, panels = _panels(len(solved), 3.3)
    for axes, (config, truth) in zip(panels, solved, strict=True):
        _draw_codewords(axes, config, truth)
        axes.plot(*_curve(truth, truth.log_aggregate), color=DARK, ls="--", lw=1.4, label="$q(z)$")
        _draw_prior(axes, config, truth)
        lost = float(truth.probs @ truth.under_q(truth.log_q - truth.log_posterior))
        axes.set_title(f"{labels[family_of(config)]}, $n = {config.ndims}$\n$q$ is {lost:.2g} nats from $p(z|x)$")
    _start_at_zero(panels)
    legend(figure, loc="outside lower center", ncols=5)
    return figure


def comparison_figure(truths: Sequence[tuple[AnyConfig, Truth]]) -> Figure:
    """q(z_top|x) over the learned model's exact posterior; a row for each family, a column for each ndims.

    Arguments:
        truths: Configurations, each with its run's densities.

    Raises:
        InputError: If there is none.
    """
    labels = labels_of((family_of(config) for config, _ in truths), lead="guide")
    rows = list(labels)
    columns = sorted({config.ndims for config, _ in truths})
    figure = Figure(figsize=(1.2 + 2.9 * len(columns), 0.9 + 1.5 * len(rows)), layout="constrained")
    panels: Any = figure.subplots(len(rows), len(columns), sharex=True, squeeze=False)
    for config, truth in truths:
        axes = panels[rows.index(family_of(config)), columns.index(config.ndims)]
        _draw_codewords(axes, config, truth)
        # A density may have a needle next to the threshold; the rest is what there is to see.
        axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(0.0, min(2.5, 1.1 * float(truth.log_q.exp().max()))))
    for row, label in enumerate(labels.values()):
        panels[row, 0].set_ylabel(label)
    for column, ndims in enumerate(columns):
        panels[0, column].set_title(f"$n = {ndims}$", fontsize=11)
        panels[-1, column].set_xlabel(r"$z_\mathrm{top}$")
    legend(figure, loc="outside lower center", ncols=3 if len(columns) > 1 else 1)
    return figure


def _panels(count: int, height: float, ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Any]]:
    """A figure with so many panels, all on one axis; each of several axes one above the other, if it has `ratios`."""
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.6 + 3.8 * columns, 0.6 + height * rows), layout="constrained")
    heights = list(ratios) * rows
    grid: Any = figure.subplots(len(heights), columns, sharey="row", squeeze=False, height_ratios=heights)
    panels = [grid[row * len(ratios) : (row + 1) * len(ratios), i] for row in range(rows) for i in range(columns)]
    for axes in (axes for panel in panels[count:] for axes in panel):
        axes.remove()
    for i, panel in enumerate(panels[:count]):
        if i % columns == 0:
            panel[0].set_ylabel("density")
    return figure, [panel[0] if len(ratios) == 1 else panel for panel in panels[:count]]


def _start_at_zero(panels: Iterable[Axes]) -> None:
    """Let densities begin at 0: once all are drawn, for panels of a row then have the height of the highest."""
    for axes in panels:
        axes.set_ylim(bottom=0.0)


def _curve(truth: Truth, log_density: Tensor) -> tuple[Any, Any]:
    """The top latent's values, and a density there: as arrays, for matplotlib goes through tensors value by value."""
    return truth.z.numpy(), log_density.exp().numpy()


def _draw_codewords(axes: Axes, config: AnyConfig, truth: Truth) -> None:
    """q(z|x) of each codeword, filled, and the exact posteriors, dotted."""
    names = config.data.names
    for codeword, colour in enumerate(codeword_colours(truth)):
        q = _curve(truth, truth.log_q[codeword])
        axes.fill_between(*q, color=colour, alpha=0.2, lw=0.0)
        axes.plot(*q, color=colour, lw=2.0, label=rf"$q(z|x{{=}}\mathbf{{{names[codeword]}}})$")
    for log_posterior in truth.log_posterior:
        axes.plot(*_curve(truth, log_posterior), color=DARK, ls=":", lw=1.4, label="exact $p(z|x)$")


def _draw_prior(axes: Axes, config: AnyConfig, truth: Truth) -> None:
    """p(z), the axes' names, and limits that show it and the threshold."""
    axes.fill_between(*_curve(truth, truth.log_prior), color=LIGHT, lw=0.0, zorder=0.5, label="$p(z)$")
    limit = max(_LIMIT, float(truth.thresholds.abs().max()) + 1.0)
    axes.set(xlabel=f"$z_{config.layers}$", xlim=(-limit, limit))
