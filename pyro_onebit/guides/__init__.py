"""Amortised posteriors (encoders), a family a file."""

from pyro_onebit.guides.base import Guide, OneLayerGuide, register_guide
from pyro_onebit.guides.flow import FLOW_START, FlowGuide
from pyro_onebit.guides.gaussian import GaussianGuide
from pyro_onebit.guides.mixture import MixtureGuide
from pyro_onebit.guides.references import ExactPosterior, ExactPosteriorGuide, PriorGuide
from pyro_onebit.guides.truncated import TruncatedGuide
from pyro_onebit.guides.two_layer import TwoLayerGuide

__all__ = [
    "FLOW_START",
    "ExactPosterior",
    "ExactPosteriorGuide",
    "FlowGuide",
    "GaussianGuide",
    "Guide",
    "MixtureGuide",
    "OneLayerGuide",
    "PriorGuide",
    "TruncatedGuide",
    "TwoLayerGuide",
    "register_guide",
]
