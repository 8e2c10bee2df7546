"""Figures: each a function of tables or densities that returns a matplotlib Figure."""

from pyro_onebit.plots.backend import matplotlib  # before all that imports it
from pyro_onebit.plots.catalogue import Drawing, comparison_drawings, save_drawings, study_drawings
from pyro_onebit.plots.losses import FLOOR, cost_figure, loss_figure, training_figure
from pyro_onebit.plots.posteriors import LIMIT, aggregate_figure, comparison_figure, posterior_figure
from pyro_onebit.plots.style import (
    CODEWORD_COLOURS,
    DARK,
    FAMILY,
    GREY,
    IDEAL_COLOUR,
    LAYER_COLOURS,
    LAYER_NAMES,
    LIGHT,
    PALETTE,
    PRIOR_COLOUR,
    colours_of,
    family_of,
    labels_of,
    legend,
    own_style,
    png,
    save,
)

__all__ = [
    "CODEWORD_COLOURS",
    "DARK",
    "FAMILY",
    "FLOOR",
    "GREY",
    "IDEAL_COLOUR",
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "LIGHT",
    "LIMIT",
    "PALETTE",
    "PRIOR_COLOUR",
    "Drawing",
    "aggregate_figure",
    "colours_of",
    "comparison_drawings",
    "comparison_figure",
    "cost_figure",
    "family_of",
    "labels_of",
    "legend",
    "loss_figure",
    "matplotlib",
    "own_style",
    "png",
    "posterior_figure",
    "save",
    "save_drawings",
    "study_drawings",
    "training_figure",
]
