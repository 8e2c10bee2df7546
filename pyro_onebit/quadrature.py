"""Quadrature on panels that are split until they resolve what is integrated over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

__all__ = ["Grid", "refine"]

_ORDER = 12
_X, _W = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(_ORDER))


def _cumulative_weights() -> Tensor:
    """Integrals from -1 to each node of the polynomials that are 1 at one node and 0 at the others.

    Such a polynomial is sum_k (k + 1/2) w_j P_k(x_j) P_k(x), and the integral of (2k + 1) P_k is
    P_{k+1} - P_{k-1}, with P_{-1} = -1 to make it vanish at -1.
    """
    legendre = np.polynomial.legendre.legvander(_X.numpy(), _ORDER)
    before = np.concatenate([-np.ones((_ORDER, 1)), legendre[:, :-2]], 1)
    return 0.5 * torch.from_numpy((legendre[:, 1:] - before) @ legendre[:, :-1].T) * _W


_CUMULATIVE = _cumulative_weights()
#: The polynomial through values at the nodes, at -1 and at 1.
_AT_ENDS = torch.from_numpy(
    np.polynomial.legendre.legvander([-1.0, 1.0], _ORDER - 1)
    @ np.linalg.inv(np.polynomial.legendre.legvander(_X.numpy(), _ORDER - 1))
)


@dataclass(frozen=True)
class Grid:
    """Composite Gauss-Legendre quadrature, twelve nodes a panel.

    Arguments:
        edges: The panels' edges, ascending, shape ``(panels + 1,)``, float64.
    """

    edges: Tensor

    @cached_property
    def nodes(self) -> Tensor:
        """The nodes, ascending, shape ``(panels * 12,)``."""
        return _nodes(self.edges[:-1], self.edges[1:]).flatten()

    @cached_property
    def weights(self) -> Tensor:
        """The nodes' weights, shape ``(panels * 12,)``."""
        return (0.5 * torch.diff(self.edges)[:, None] * _W).flatten()

    @property
    def midpoints(self) -> Tensor:
        """The panels' midpoints, shape ``(panels,)``."""
        return 0.5 * (self.edges[:-1] + self.edges[1:])

    @property
    def widths(self) -> Tensor:
        """The panels' widths, shape ``(panels,)``."""
        return torch.diff(self.edges)

    def cumulative(self, values: Tensor) -> Tensor:
        """Integrals from the first edge to each node, of functions given at the nodes, ``(..., N)``."""
        panels = values.unflatten(-1, (-1, _ORDER))
        inside = 0.5 * self.widths[:, None] * (panels @ _CUMULATIVE.T)
        whole = 0.5 * self.widths * (panels @ _W)
        return (inside + (whole.cumsum(-1) - whole)[..., None]).flatten(-2)

    def invert(self, cumulative: Tensor, share: Tensor) -> Tensor:
        """Where cumulatives at the nodes, ``(..., N)``, reach shares ``(..., M)`` of their total; linear between."""
        level = share.double() * cumulative[..., -1:]
        upper = torch.searchsorted(cumulative, level).clamp(1, cumulative.shape[-1] - 1)
        low, high = cumulative.gather(-1, upper - 1), cumulative.gather(-1, upper)
        part = ((level - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0.0, 1.0)
        return torch.lerp(self.nodes[upper - 1], self.nodes[upper], part)

    def halved(self) -> Grid:
        """The same range with every panel cut in two."""
        return Grid(torch.cat([self.edges, self.midpoints]).sort().values)


def _nodes(left: Tensor, right: Tensor) -> Tensor:
    return 0.5 * (left + right)[:, None] + 0.5 * (right - left)[:, None] * _X


def _evaluate(f: Callable[[Tensor], Tensor], nodes: Tensor) -> Tensor:
    """Each function at each panel's nodes, shape ``(panels, nodes of a panel, functions)``."""
    values = f(nodes.flatten())
    if not torch.isfinite(values).all():
        raise ArithmeticError("an integrand is not finite: the parameters of this model or guide cannot be evaluated")
    return values.reshape(*nodes.shape, -1)


def _integrals(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Each panel's integral of each function, shape ``(panels, functions)``."""
    half = 0.5 * (right - left)[:, None]
    return half * torch.einsum("k,pkm->pm", _W, _evaluate(f, _nodes(left, right)))


def _hidden(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """What a jump between a panel's edge and the node next to it may hide of its integrals, shape ``(panels,)``.

    Seen by the function's value at the edge, against that of the polynomial through the nodes.
    """
    ends = torch.stack([left, right], 1)
    at_ends = _evaluate(f, ends)
    extrapolated = torch.einsum("ek,pkm->pem", _AT_ENDS, _evaluate(f, _nodes(left, right)))
    return 0.5 * (1.0 + _X[0]) * (right - left) * (at_ends - extrapolated).abs().amax((1, 2))


def refine(
    f: Callable[[Tensor], Tensor], edges: Tensor, tolerance: float = 1e-9, depth: int = 48, *, jumps: bool = False
) -> Grid:
    """Split panels until halving one no longer changes any function's integral over it.

    Arguments:
        f: Takes nodes ``(N,)`` to the values of all functions, ``(N, functions)``.
        edges: Where to start, ascending.
        tolerance: The change, absolute, that a panel may still show.
        depth: How often a panel may be halved (a jump is enclosed, not resolved).
        jumps: Whether to look for jumps between a panel's edge and its first or last node, too.

    Raises:
        ArithmeticError: If a value is not finite.
    """
    left, right = edges[:-1], edges[1:]
    coarse = _integrals(f, left, right)
    settled = [edges[-1:]]
    for _ in range(depth):
        middle = 0.5 * (left + right)
        halves_left = torch.stack([left, middle], 1)
        halves_right = torch.stack([middle, right], 1)
        fine = _integrals(f, halves_left.flatten(), halves_right.flatten()).reshape(len(left), 2, -1)
        open_ = (fine.sum(1) - coarse).abs().amax(1) > tolerance
        if jumps and not open_.all():
            open_[~open_] = _hidden(f, left[~open_], right[~open_]) > tolerance
        settled.append(left[~open_])
        left, right = halves_left[open_].flatten(), halves_right[open_].flatten()
        coarse = fine[open_].flatten(0, 1)
        if not len(left):
            break
    return Grid(torch.cat([*settled, left]).sort().values)
