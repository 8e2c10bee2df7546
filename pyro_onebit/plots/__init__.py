"""Figures: each a function of tables or densities that returns a matplotlib Figure."""

from pyro_onebit.plots.backend import matplotlib  # before all that imports it
from pyro_onebit.plots.catalogue import Drawing, comparison_drawings, save_drawings, study_drawings
from pyro_onebit.plots.losses import FLOORS, cost_figure, information_figure, loss_figure, training_figure
from pyro_onebit.plots.posteriors import aggregate_figure, comparison_figure, posterior_figure
from pyro_onebit.plots.style import (
    DARK,
    GREY,
    LAYER_COLOURS,
    LAYER_NAMES,
    LIGHT,
    MARKERS,
    PALETTE,
    codeword_colours,
    legend,
    ndims_axis,
    own_style,
    png,
    save,
)

__all__ = [
    "DARK",
    "FLOORS",
    "GREY",
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "LIGHT",
    "MARKERS",
    "PALETTE",
    "Drawing",
    "aggregate_figure",
    "codeword_colours",
    "comparison_drawings",
    "comparison_figure",
    "cost_figure",
    "information_figure",
    "legend",
    "loss_figure",
    "matplotlib",
    "ndims_axis",
    "own_style",
    "png",
    "posterior_figure",
    "save",
    "save_drawings",
    "study_drawings",
    "training_figure",
]
