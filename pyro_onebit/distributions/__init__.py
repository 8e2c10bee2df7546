"""Univariate distributions that the libraries lack, and how each is sampled from noise."""

from pyro_onebit.distributions.bernoulli import BinaryBernoulli
from pyro_onebit.distributions.brought import PerRow, per_row
from pyro_onebit.distributions.mixture import NormalMixture
from pyro_onebit.distributions.noise import sample_from_noise
from pyro_onebit.distributions.normal import ndtr, standard_normal
from pyro_onebit.distributions.spline import FLATTEST, IncreasingSpline
from pyro_onebit.distributions.truncated import TruncatedNormal

__all__ = [
    "FLATTEST",
    "BinaryBernoulli",
    "IncreasingSpline",
    "NormalMixture",
    "PerRow",
    "TruncatedNormal",
    "ndtr",
    "per_row",
    "sample_from_noise",
    "standard_normal",
]
