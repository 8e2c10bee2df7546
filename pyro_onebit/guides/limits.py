r"""The lowest losses of two-layer guides whose q(z2|x) is Gaussian, whatever the decoder and any Gaussian p(z1|z2).

The two-layer guide's :math:`q(z_2 \mid x) = \int q(z_2 \mid z_1)\, q(z_1 \mid x)\, dz_1` is nearly arbitrary; these
ones' are not, and a mixture of two Gaussians is none, so that they stay away from the entropy. Below, r(z2) is the
responsibility :math:`q(x{=}1 \mid z_2)`, and the KL term of z2 is between Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from pyro_onebit.data import OneBitData
from pyro_onebit.exact import optimum
from pyro_onebit.quadrature import normal_nodes

_Array = NDArray[np.float64]
_PANELS = 60
#: Log-odds of codeword 1, from even ones on: what the cost of a lower layer is interpolated between.
_ODDS = np.linspace(0.0, 14.0, 29)
#: Where q(z2|x) starts: half the distance of the means, and both scales.
_STARTS = ((0.9, 0.4), (0.7, 0.7))


def _two_normals(prob: float, loc: _Array, scale: _Array) -> tuple[_Array, _Array]:
    """Nodes' masses under the mixture of N(loc[c], scale[c]^2), and the log-odds of codeword 1 there."""
    z, weights = normal_nodes(loc, scale, _PANELS)
    loc, scale = loc[:, None], scale[:, None]
    log_joint = np.log([[1.0 - prob], [prob]]) - 0.5 * ((z - loc) / scale) ** 2 - np.log(scale)
    masses = weights * np.exp(np.logaddexp(*log_joint)) / np.sqrt(2.0 * np.pi)
    return masses, log_joint[1] - log_joint[0]


def _lowest(
    data: OneBitData, cost: Callable[[_Array, _Array, _Array], float], own: tuple[tuple[float, ...], ...] = ((),)
) -> float:
    """The least of the KL term of z2 plus what the lower layer costs, over q(z2|x) and numbers of the lower layer.

    Arguments:
        data: The codewords' number of dimensions and probabilities.
        cost: Of the nodes' masses, the log-odds there, and the lower layer's numbers; nats.
        own: Where the search starts in the latter.
    """
    p = np.array([1.0 - data.prob, data.prob])

    def loss(v: _Array) -> float:
        loc, scale = v[:2], np.exp(v[2:4])
        kl = p @ (0.5 * (loc**2 + scale**2 - 1.0) - np.log(scale))
        return float(kl + cost(*_two_normals(data.prob, loc, scale), v[4:]))

    # With neither latent used, the loss is n times the entropy.
    found = [data.ndims * data.entropy]
    for apart, scale in _STARTS:
        for more in own:
            start = [apart * (data.prob - 1.0) * 2.0, apart * data.prob * 2.0, *np.log([scale, scale]), *more]
            found.append(float(minimize(loss, start, method="BFGS").fun))
    return min(found)


@cache
def mean_field_optimum(ndims: int, prob: float = 0.5) -> float:
    r"""The lowest loss of Gaussian :math:`q(z_1 \mid x)\, q(z_2 \mid x)`, nats per datum.

    The best p(z1|z2) has the moments of :math:`q(z_1 \mid z_2) = \sum_c r_c(z_2)\, q(z_1 \mid x_c)`, whose variance is
    v(z2), say, so that the KL term of z1 is :math:`E[\frac12 \ln v - \sum_c r_c \ln s_c]`; the best decoder is the
    responsibility q(x=1|z1), so that the reconstruction costs :math:`n\,H_q(X \mid Z_1)`. z1's location and scale make
    no difference: six numbers remain.

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """
    data = OneBitData(ndims, prob)

    def cost(masses: _Array, odds: _Array, own: _Array) -> float:
        apart, log_scale = np.exp(own[0]), own[1] * np.array([-0.5, 0.5])
        below, odds_below = _two_normals(prob, np.array([0.0, apart]), np.exp(log_scale))
        recon = ndims * below @ _entropy(odds_below)
        r = expit(odds)
        v = (1.0 - r) * np.exp(2.0 * log_scale[0]) + r * np.exp(2.0 * log_scale[1]) + r * (1.0 - r) * apart**2
        return float(recon + masses @ (0.5 * np.log(v) - (1.0 - r) * log_scale[0] - r * log_scale[1]))

    return _lowest(data, cost, ((0.5, 0.0), (1.6, 0.0), (2.2, 0.0)))


@cache
def top_down_optimum(ndims: int, prob: float = 0.5) -> float:
    r"""The lowest loss of Gaussian :math:`q(z_2 \mid x)\, q(z_1 \mid z_2, x)`, nats per datum.

    Given z2 the lower layer is a one-layer problem, in which codeword 1 has probability r(z2). If the decoder saw z2,
    each could be solved alone, so that the loss would be :math:`E[L(n, r(z_2))]` plus the KL term of z2, with L the
    one-layer optimum (`exact.optimum`). The decoder sees z1 alone. But where the mean of p(z1|z2) is a staircase whose
    steps are as wide as the line is long to q(z1|z2,x), z1 says on which step it is, and r hardly changes on one: the
    finer the stairs, the closer the loss comes. Networks make few steps.

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """
    data = OneBitData(ndims, prob)
    below = CubicSpline(_ODDS, [optimum(ndims, float(expit(odds))) for odds in _ODDS])

    def cost(masses: _Array, odds: _Array, own: _Array) -> float:
        return float(masses @ below(np.minimum(np.abs(odds), _ODDS[-1])))

    return _lowest(data, cost)


def _entropy(odds: _Array) -> _Array:
    """Of a bit with these log-odds, nats."""
    entropy: _Array = -expit(odds) * log_expit(odds) - expit(-odds) * log_expit(-odds)
    return entropy
