"""Univariate distributions that the libraries lack, and how each is sampled from noise."""

from pyro_onebit.distributions.bernoulli import BinaryBernoulli
from pyro_onebit.distributions.brought import per_row
from pyro_onebit.distributions.mixture import NormalMixture
from pyro_onebit.distributions.noise import sample_from_noise
from pyro_onebit.distributions.normal import ndtr, standard_normal
from pyro_onebit.distributions.spline import IncreasingSpline
from pyro_onebit.distributions.truncated import TruncatedNormal

__all__ = [
    "BinaryBernoulli",
    "IncreasingSpline",
    "NormalMixture",
    "TruncatedNormal",
    "ndtr",
    "per_row",
    "sample_from_noise",
    "standard_normal",
]
