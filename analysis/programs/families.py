"""Densities, each written twice, in torch and in SciPy, from the same numbers; and decoders.

A decoder is one function of z that takes torch or numpy as its second argument. `side` is -1 for codeword 0 and 1 for
codeword 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform
from scipy import stats
from scipy.special import log_expit
from torch import Tensor

from programs.answers import LogLikelihood, Mixture, StudentT

#: Takes z, and torch or numpy.
Decoder = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Family:
    """A density for each side: as torch makes it from sides of any shape, and as SciPy does from one."""

    torch: Callable[[Tensor], Any]
    law: Callable[[float], Mixture]


def family(
    make: Callable[[Tensor, Tensor], Any],
    base: Any,
    scale: float = 0.5,
    slope: float = 1.0,
    shift: float = 0.0,
    reach: float = 250.0,
) -> Family:
    """A law of location ``slope * side + shift`` and a scale."""
    return Family(
        lambda side: make(slope * side + shift, scale * torch.ones_like(side)),
        lambda side: Mixture(((1.0, base, slope * side + shift, scale),), reach),
    )


def gaussian(scale: float = 0.5, slope: float = 1.0, shift: float = 0.0) -> Family:
    return family(dist.Normal, stats.norm(), scale, slope, shift)


def student(df: float, scale: float = 0.5, slope: float = 1.0) -> Family:
    def make(loc: Tensor, scale: Tensor) -> Any:
        return dist.StudentT(df * torch.ones_like(loc), loc, scale)

    return family(make, StudentT(df), scale, slope, reach=690.0 if 2 < df < 3 else 250.0)


def cauchy(scale: float = 0.5, slope: float = 1.0) -> Family:
    return family(dist.Cauchy, stats.cauchy(), scale, slope)


def uniform(width: float = 1.0, slope: float = 1.0, shift: float = -0.5) -> Family:
    return family(lambda low, width: dist.Uniform(low, low + width), stats.uniform(), width, slope, shift)


def beyond(make: Callable[[Tensor], Any], base: Any, slope: float = 1.0, scale: float = 0.5) -> Family:
    """A law on the half line from slope * side on."""

    def moved(low: Tensor, scale: Tensor) -> Any:
        return dist.TransformedDistribution(make(torch.ones_like(low)), [AffineTransform(low, scale)])

    return family(moved, base, scale, slope)


def mixture(weights: Sequence[float], places: Sequence[float], scales: Sequence[float]) -> Family:
    """Gaussians at ``place * side``."""

    def make(side: Tensor) -> Any:
        w, m, s = (side.new_tensor(values) for values in (weights, places, scales))
        side = side[..., None]
        return dist.MixtureSameFamily(
            dist.Categorical(probs=w * torch.ones_like(side)), dist.Normal(m * side, s * torch.ones_like(side))
        )

    def law(side: float) -> Mixture:
        parts = zip(weights, places, scales, strict=True)
        return Mixture(tuple((w, stats.norm(), m * side, s) for w, m, s in parts))

    return Family(make, law)


def fixed(own: Family) -> Family:
    """The same density for either side: a prior."""
    return Family(lambda side: own.torch(torch.ones_like(side)), lambda _side: own.law(1.0))


STANDARD = gaussian(1.0, 0.0)
CLOSE = gaussian(0.5)


def steep(z: Any, _m: Any) -> Any:
    return 5.0 * z


def log_likelihood(decoder: Decoder, ndims: int) -> LogLikelihood:
    """log p(x_c|z1) of Bernoulli dimensions."""
    return lambda c, z: ndims * log_expit(decoder(z, np) * (2 * c - 1))


def around(place: float, smallest: float, largest: float = 10.0, count: int = 60) -> list[float]:
    """Places to either side, ever farther."""
    steps = np.geomspace(smallest, largest, count)
    return [*(place - steps), place, *(place + steps)]
