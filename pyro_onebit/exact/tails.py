"""What an integral has beyond the ends of its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_onebit.quadrature import Grid

#: A tail that is worth less is taken for nothing.
_NOTHING = 1e-11
#: Powers of 1/z that are not above 1 by this have no integral.
_DIVERGES = 1.0 + 1e-6


@dataclass(frozen=True)
class Tail:
    """What lies beyond the ends of a grid, for each codeword.

    Arguments:
        beyond: The integral there, infinite if there is none.
        error: By how much it may be wrong.
    """

    beyond: Tensor
    error: Tensor


def tail_of(grid: Grid, shares: Tensor) -> Tail:
    r"""The integral beyond a grid's ends, of functions given by each node's share of it, ``(M, N)``.

    A grid ends where nothing is left, or at some :math:`10^{19}`. What has not vanished there falls like a power of z:
    the integral of :math:`C z^{-a}` from z on is :math:`C z^{1-a} / (a - 1)`, and infinite where a is 1 or less.
    """
    beyond, error = torch.zeros(2, len(shares), dtype=torch.float64)
    values = shares / grid.weights
    total = shares.sum(-1).abs().clamp_min(1.0)
    panel = len(grid.nodes) // (len(grid.edges) - 1)
    for end, inner, before in ((0, panel - 1, 2 * panel - 1), (-1, -panel, -2 * panel)):
        z = float(grid.edges[end])
        for c, f in enumerate(values):
            rest = float(f[end]) * abs(z - float(grid.nodes[len(grid.nodes) // 2]))
            if not math.isfinite(rest) or abs(rest) <= _NOTHING * float(total[c]):
                continue
            powers = [_power(grid.nodes, f, end, inner), _power(grid.nodes, f, inner, before)]
            if not powers[0] > _DIVERGES:
                beyond[c] += math.copysign(math.inf, rest)
                continue
            at_edge = float(f[end]) * abs(z / float(grid.nodes[end])) ** -powers[0]
            own = at_edge * abs(z) / (powers[0] - 1.0)
            beyond[c] += own
            error[c] += abs(own) * min(1.0, abs(powers[0] - powers[1]) / (powers[0] - 1.0))
    return Tail(beyond, error)


def _power(z: Tensor, f: Tensor, outer: int, inner: int) -> float:
    """The a for which f falls like z^-a between two nodes."""
    ratio = float(f[outer] / f[inner]) if float(f[inner]) else math.nan
    return -math.log(ratio) / math.log(abs(float(z[outer] / z[inner]))) if ratio > 0.0 else math.nan
