r"""The lowest loss of a Gaussian amortised posterior, whatever the decoder.

Given q, the best decoder puts each dimension's probability at the responsibility
:math:`r_i(z) = q(x_i{=}1 \mid z)`, so the loss is
:math:`\sum_i H_q(X_i \mid Z) + \sum_c p_c\,\mathrm{KL}(N(\mu_c, s_c^2) \,\|\, N(0, 1))`.
:math:`H_q(X_i \mid Z)` does not change when z is shifted or scaled; the shift and scale that make
the aggregate's mean 0 and variance 1 minimise the KL and leave :math:`-\sum_c p_c \ln s_c`. Of two codewords
two numbers remain: the separation of the means and the ratio of the scales. Of M codewords 2M are searched, from
several orders of the means along z, for each may end in a local optimum of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_expit, ndtri
from torch import Tensor

from pyro_onebit.data import OneBitData, gray_code
from pyro_onebit.errors import InputError
from pyro_onebit.programs import DataLike
from pyro_onebit.quadrature import Grid, normal_nodes

_PANELS = 80
_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True)
class GaussianOptimum:
    """The best Gaussian q(z1|x) under its best decoder; losses in nats per datum.

    Arguments:
        loss: Its loss.
        recon: The part of the loss that is reconstruction.
        loc: Means given each codeword.
        scale: Standard deviations given each codeword.
    """

    loss: float
    recon: float
    loc: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The codewords' numbers in the order of their means; those that share one in the order of their numbers."""
        return tuple(sorted(range(len(self.loc)), key=lambda c: round(self.loc[c], 3)))


def _conditional_entropy(prob: float, loc: np.ndarray, scale: np.ndarray) -> float:
    """H(X|Z) in nats for z given codeword c from N(loc[c], scale[c]^2)."""
    z, weights = normal_nodes(loc, scale, _PANELS)
    log_joint = [
        np.log(p / s) - 0.5 * ((z - m) / s) ** 2 - _HALF_LOG_2PI
        for p, m, s in zip((1 - prob, prob), loc, scale, strict=True)
    ]
    gap = log_joint[1] - log_joint[0]
    surprise = -np.exp(log_joint[0]) * log_expit(-gap) - np.exp(log_joint[1]) * log_expit(gap)
    return float(weights @ surprise)


def _standardised(prob: float, separation: float, log_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales with the given separation and scale ratio, aggregate mean 0 and variance 1."""
    p = np.array([1 - prob, prob])
    scale = np.exp(np.array([-0.5, 0.5]) * log_ratio)
    loc = separation * np.array([-prob, 1 - prob])
    total = np.sqrt(p @ (loc**2 + scale**2))
    return loc / total, scale / total


def gaussian_optimum(data: int | DataLike, prob: float = 0.5, *, order: Sequence[int] | None = None) -> GaussianOptimum:
    """The best Gaussian q(z1|x) for some codewords, found by a search.

    Of two codewords it goes over the separation and the ratio of the scales; of M over all means and scales, from every
    order of the codewords along z for M up to 4, and beyond from Gray codes and many random orders; where
    a codebook has few distinct columns, codewords may share a place, too. A lower loss may have been missed, but one
    that is reported can be reached.

    Arguments:
        data: The codewords; a number stands for `OneBitData` of so many dimensions.
        prob: The probability of codeword 1, if `data` is a number.
        order: The codewords' numbers along z, in which alone to search: the result is a local optimum, in that order
            if one was found there.

    Raises:
        InputError: If `ndims` or `prob` is out of range, or `order` does not name each codeword once.
    """
    if isinstance(data, int):
        data = OneBitData(data, prob)
    if isinstance(data, OneBitData) and order is None:
        return _two_words(data.ndims, data.prob)
    columns, counts = data.codewords.unique(dim=1, return_counts=True)
    if order is not None and sorted(order) != list(range(len(columns))):
        raise InputError(f"order is {list(order)}; it must have each of 0 to {len(columns) - 1} once")
    words = tuple(map(tuple, columns.int().tolist()))
    own = None if order is None else tuple(order)
    return _many_words(words, tuple(counts.tolist()), tuple(data.probs.tolist()), own)


@cache
def _two_words(ndims: int, prob: float) -> GaussianOptimum:
    """Minimise over the separation and the scale ratio, from several starts and from z unused."""
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


#: Codewords of all random orders together from which many of them are searched; columns whose orders are all tried.
_RANDOM_WORDS, _MOST_COLUMNS = 320, 4
#: Where a search in one order starts: scales in units of the distance to the nearer neighbour; means that count as one.
_WIDTHS, _CLOSE = (0.3, 0.2, 0.1, 0.05), 1e-3
#: How far a search's first step goes at most.
_FIRST_STEP = 0.1
#: Standard deviations of each codeword that are integrated over.
_REACH = 8.5
#: Panels of 16 nodes for each codeword: in a search, and for its result.
_COARSE, _FINE = 12, 40


class _Cost:
    """The loss of Gaussians under their best decoder, by quadrature over each codeword's own panels.

    Arguments:
        words: The codewords' distinct columns, ``(M, J)``.
        counts: In how many dimensions each column occurs, ``(J,)``.
        probs: The codewords' probabilities.
        panels: Panels for each codeword.
    """

    def __init__(self, words: Any, counts: Any, probs: Any, panels: int) -> None:
        self.ones = torch.tensor(words, dtype=torch.bool).T
        self.counts, self.probs = (torch.tensor(values, dtype=torch.float64) for values in (counts, probs))
        grid = Grid(torch.linspace(-_REACH, _REACH, panels + 1, dtype=torch.float64), order=16)
        self.t, self.masses = grid.nodes, grid.weights * torch.exp(-0.5 * grid.nodes**2 - _HALF_LOG_2PI)

    def recon(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        """Sum over dimensions of H(X_i|Z), nats."""
        z = loc[:, None, None] + log_scale.exp()[:, None, None] * self.t[:, None]
        log_joint = self.probs.log() - log_scale - 0.5 * ((z - loc) / log_scale.exp()) ** 2
        total = torch.logsumexp(log_joint, -1)
        costs = []
        for own in self.ones:
            # Of each node, the responsibility of the codewords that agree there with the node's own.
            one, zero = (torch.logsumexp(log_joint[..., side], -1) for side in (own, ~own))
            costs.append((torch.where(own[:, None], one, zero) - total) @ self.masses @ self.probs)
        return -(self.counts @ torch.stack(costs))

    def __call__(self, v: Tensor) -> Tensor:
        """The loss of means and logarithms of scales, ``(2M,)``, nats."""
        loc, log_scale = v.chunk(2)
        kl = 0.5 * (loc**2 + (2.0 * log_scale).exp() - 1.0) - log_scale
        return self.recon(loc, log_scale) + self.probs @ kl

    def lowest(self, start: Any) -> tuple[float, Any]:
        """Where the search ends, and the loss there."""

        def value_and_gradient(v: Any) -> tuple[float, Any]:
            at = torch.from_numpy(np.asarray(v)).requires_grad_()
            value = self(at)
            return value.item(), torch.autograd.grad(value, at)[0].numpy()

        # Left alone, the first step is as long as a standard deviation, and leads out of the start's order.
        _, gradient = value_and_gradient(start)
        near = np.eye(len(gradient)) * _FIRST_STEP / max(_FIRST_STEP, float(np.linalg.norm(gradient)))
        options = {"gtol": 1e-7, "maxiter": 500, "hess_inv0": near}
        fit = minimize(value_and_gradient, start, jac=True, method="BFGS", options=options)
        return float(fit.fun), fit.x


@cache
def _many_words(
    words: tuple[tuple[int, ...], ...], counts: tuple[int, ...], probs: tuple[float, ...], order: tuple[int, ...] | None
) -> GaussianOptimum:
    """Minimise over all means and scales, from several orders of the codewords and from z unused."""
    coarse, fine = (_Cost(words, counts, probs, panels) for panels in (_COARSE, _FINE))
    starts = [_places(order, probs, width=width) for width in _WIDTHS] if order else _starts(words, counts, probs)
    found = sorted((coarse.lowest(start) for start in starts), key=lambda end: end[0])
    # A search's first steps are long: they may lead out of the order.
    kept = [end for end in found if order and all(np.diff(end[1][list(order)]) > -_CLOSE)]
    found = kept or found
    loss, v = min((fine.lowest(end) for _, end in found[:2]), key=lambda end: end[0])
    unused = float(fine(torch.zeros(2 * len(words), dtype=torch.float64)))
    # Where z is not worth its cost the search creeps towards "unused" without arriving.
    if loss >= unused * (1.0 - 1e-9):
        loss, v = unused, np.zeros(2 * len(words))
    loc, log_scale = torch.from_numpy(v).chunk(2)
    recon = float(fine.recon(loc, log_scale))
    return GaussianOptimum(loss, recon, tuple(loc.tolist()), tuple(log_scale.exp().tolist()))


def _starts(
    words: tuple[tuple[int, ...], ...], counts: tuple[int, ...], probs: tuple[float, ...]
) -> Iterator[np.ndarray]:
    """Where a search over many codewords starts; the mirror image of an order is the same."""
    count, dims = len(words), len(words[0])
    # Columns in every order and selection; those that occur as often are alike.
    chosen = {
        tuple(counts[j] for j in columns): columns
        for few in range(1, dims + 1 if dims <= _MOST_COLUMNS else 1)
        for columns in permutations(range(dims), few)
    }.values()
    if count <= 4:
        orders = [order for order in permutations(range(count)) if order[0] < order[-1]]
    else:
        rng = np.random.default_rng(0)
        orders = [_gray_order(words, columns) for columns in chosen if len(columns) == dims]
        orders += [tuple(rng.permutation(count).tolist()) for _ in range(_RANDOM_WORDS // count)]
    for order in orders:
        yield _places(order, probs)
    # Codewords that differ in other columns alone share their places.
    for columns in chosen:
        if len(columns) < dims:
            yield _places(_gray_order(words, columns), probs, [tuple(word[j] for j in columns) for word in words])


def _gray_order(words: tuple[tuple[int, ...], ...], columns: Sequence[int]) -> tuple[int, ...]:
    """The words in the order of the reflected Gray code of some of their columns."""
    places = gray_code([1] * len(columns))
    return tuple(
        sorted(range(len(words)), key=lambda c: places.index(int("".join(str(words[c][j]) for j in columns), 2)))
    )


def quantile_places(order: Sequence[int], probs: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and scales, by codeword, near the normal quantiles of the codewords' shares of the prior, in an order.

    A scale is 0.3 of the distance to the nearer neighbour.
    """
    loc, log_scale = _places(order, probs).reshape(2, -1)
    return tuple(loc.tolist()), tuple(np.exp(log_scale).tolist())


def _places(
    order: Sequence[int], probs: Sequence[float], alike: Sequence[Any] | None = None, width: float = 0.3
) -> np.ndarray:
    """Means and logarithms of scales of codewords that share the prior in an order; what is alike shares a place."""
    share = np.array([probs[c] for c in order])
    names = list(range(len(order))) if alike is None else [alike[c] for c in order]
    groups = np.array([names.index(name) for name in names])
    own = np.array([share[groups == group].sum() for group in groups])
    upper = np.array([share[groups <= group].sum() for group in groups])
    loc = 1.1 * ndtri(upper - 0.5 * own)
    apart = np.diff(np.unique(loc), prepend=-np.inf, append=np.inf)
    nearest = np.minimum(apart[:-1], apart[1:])[np.searchsorted(np.unique(loc), loc)]
    v = np.empty(2 * len(order))
    v[list(order)], v[len(order) + np.array(order)] = loc, np.log(width * nearest)
    return v


def optimum(data: int | DataLike, prob: float = 0.5) -> float:
    """The lowest loss, nats per datum, that any decoder can reach with a Gaussian q(z1|x); as `gaussian_optimum`.

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """
    return gaussian_optimum(data, prob).loss
