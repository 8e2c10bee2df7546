"""Amortised posteriors (encoders), a family a file."""

from pyro_onebit.guides.base import (
    Guide,
    MarkovGuide,
    MeanFieldGuide,
    OneLayerGuide,
    SkipGuide,
    TopDownGuide,
    register_guide,
)
from pyro_onebit.guides.flow import FLOW_START, FlowGuide
from pyro_onebit.guides.gaussian import GaussianGuide
from pyro_onebit.guides.limits import mean_field_optimum, top_down_optimum
from pyro_onebit.guides.mixture import MixtureGuide
from pyro_onebit.guides.references import ExactPosterior, ExactPosteriorGuide, PriorGuide
from pyro_onebit.guides.truncated import TruncatedGuide
from pyro_onebit.guides.two_layer import GaussianMeanFieldGuide, GaussianTopDownGuide, TwoLayerGuide, TwoLayerSkipGuide

__all__ = [
    "FLOW_START",
    "ExactPosterior",
    "ExactPosteriorGuide",
    "FlowGuide",
    "GaussianGuide",
    "GaussianMeanFieldGuide",
    "GaussianTopDownGuide",
    "Guide",
    "MarkovGuide",
    "MeanFieldGuide",
    "MixtureGuide",
    "OneLayerGuide",
    "PriorGuide",
    "SkipGuide",
    "TopDownGuide",
    "TruncatedGuide",
    "TwoLayerGuide",
    "TwoLayerSkipGuide",
    "mean_field_optimum",
    "register_guide",
    "top_down_optimum",
]
