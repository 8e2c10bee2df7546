"""Conditional networks: ``forward(c)`` returns a Distribution."""

from pyro_onebit.nn.architecture import ONE_LAYER, PLAIN, REFERENCE, TWO_LAYER, Architecture, Start, start_around
from pyro_onebit.nn.between import GaussianNet, TransportNet, between_latents
from pyro_onebit.nn.decoder import BernoulliNet
from pyro_onebit.nn.encoder import CodewordNet, MixtureNet, MixturePriorNet, RowNet, SplineNet, TruncatedNet
from pyro_onebit.nn.network import MIN_VARIANCE, RANGE, UNIT_BIAS, Network, normal, spread_bends, variance_of
from pyro_onebit.nn.program import Program, frozen
from pyro_onebit.nn.transport import Transport

__all__ = [
    "MIN_VARIANCE",
    "ONE_LAYER",
    "PLAIN",
    "RANGE",
    "REFERENCE",
    "TWO_LAYER",
    "UNIT_BIAS",
    "Architecture",
    "BernoulliNet",
    "CodewordNet",
    "GaussianNet",
    "MixtureNet",
    "MixturePriorNet",
    "Network",
    "Program",
    "RowNet",
    "SplineNet",
    "Start",
    "Transport",
    "TransportNet",
    "TruncatedNet",
    "between_latents",
    "frozen",
    "normal",
    "spread_bends",
    "start_around",
    "variance_of",
]
