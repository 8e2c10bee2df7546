r"""The lowest loss of a Gaussian amortised posterior, whatever the decoder.

Given q, the best decoder puts each dimension's probability at the responsibility
:math:`r(z) = q(x{=}1 \mid z)`, so the loss is
:math:`n\,H_q(X \mid Z) + \sum_c p_c\,\mathrm{KL}(N(\mu_c, s_c^2) \,\|\, N(0, 1))`.
:math:`H_q(X \mid Z)` does not change when z is shifted or scaled; the shift and scale that make
the aggregate's mean 0 and variance 1 minimise the KL and leave :math:`-\sum_c p_c \ln s_c`. Two
numbers remain: the separation of the means and the ratio of the scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit

from pyro_onebit.data import OneBitData

_X, _W = np.polynomial.legendre.leggauss(16)
_PANELS = 80
_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True)
class GaussianOptimum:
    """The best Gaussian q(z1|x) under its best decoder; losses in nats per datum.

    Arguments:
        loss: Its loss.
        recon: The part of the loss that is reconstruction.
        loc: Means given codewords 0 and 1.
        scale: Standard deviations given codewords 0 and 1.
    """

    loss: float
    recon: float
    loc: tuple[float, float]
    scale: tuple[float, float]


def _conditional_entropy(prob: float, loc: np.ndarray, scale: np.ndarray) -> float:
    """H(X|Z) in nats for z given codeword c from N(loc[c], scale[c]^2)."""
    edges = np.unique(
        np.concatenate([m + s * np.linspace(-9, 9, _PANELS + 1) for m, s in zip(loc, scale, strict=True)])
    )
    half = 0.5 * np.diff(edges)[:, None]
    z = (edges[:-1, None] + half + half * _X).ravel()
    log_joint = [
        np.log(p / s) - 0.5 * ((z - m) / s) ** 2 - _HALF_LOG_2PI
        for p, m, s in zip((1 - prob, prob), loc, scale, strict=True)
    ]
    gap = log_joint[1] - log_joint[0]
    surprise = -np.exp(log_joint[0]) * log_expit(-gap) - np.exp(log_joint[1]) * log_expit(gap)
    return float((half * _W).ravel() @ surprise)


def _standardised(prob: float, separation: float, log_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales with the given separation and scale ratio, aggregate mean 0 and variance 1."""
    p = np.array([1 - prob, prob])
    scale = np.exp(np.array([-0.5, 0.5]) * log_ratio)
    loc = separation * np.array([-prob, 1 - prob])
    total = np.sqrt(p @ (loc**2 + scale**2))
    return loc / total, scale / total


@cache
def gaussian_optimum(ndims: int, prob: float = 0.5) -> GaussianOptimum:
    """Minimise over the separation and the scale ratio, from several starts and from z unused.

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """
    data = OneBitData(ndims, prob)
    p = np.array([1 - prob, prob])

    def loss(v: np.ndarray) -> float:
        loc, scale = _standardised(prob, np.exp(v[0]), v[1])
        return float(ndims * _conditional_entropy(prob, loc, scale) - p @ np.log(scale))

    unused = GaussianOptimum(ndims * data.entropy, ndims * data.entropy, (0.0, 0.0), (1.0, 1.0))
    fits = [
        minimize(loss, [np.log(separation), 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
        for separation in (1.0, 6.0)
    ]
    best = min(fits, key=lambda fit: fit.fun)
    # Where z is not worth its cost the search creeps towards "unused" without arriving.
    if best.fun >= unused.loss * (1.0 - 1e-9):
        return unused
    loc, scale = _standardised(prob, np.exp(best.x[0]), best.x[1])
    recon = ndims * _conditional_entropy(prob, loc, scale)
    return GaussianOptimum(float(best.fun), recon, tuple(loc.tolist()), tuple(scale.tolist()))


def optimum(ndims: int, prob: float = 0.5) -> float:
    """The lowest loss, nats per datum, that any decoder can reach with a Gaussian q(z1|x).

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """
    return gaussian_optimum(ndims, prob).loss
