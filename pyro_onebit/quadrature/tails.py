"""What an integral has beyond the ends of its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_onebit.quadrature.grid import Grid

#: A tail that is worth less is taken for nothing.
_NOTHING = 1e-11
#: Powers of 1/z that are not above 1 by this have no integral.
_DIVERGES = 1.0 + 1e-6
#: Two neighbouring panels' powers must agree to this, and an eighth of the panels reach out by this factor, to be a
#: power's tail.
_ALIKE, _WIDENS = 1e-2, 1e6


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

    A grid ends where nothing is left, or at some :math:`10^{19}` or :math:`10^{69}`. What has not vanished there and
    falls like a power of z has the integral :math:`\int_z^\infty C z^{-a} = C z^{1-a} / (a - 1)`, and none where a is
    1 or less. What else is left at an end is an error: where it falls ever faster, as :math:`C e^{-bz}` at last, it is
    at most :math:`C e^{-bz} / b`.
    """
    beyond, error = torch.zeros(2, len(shares), dtype=torch.float64)
    values = shares / grid.weights
    total = shares.sum(-1).abs().clamp_min(1.0)
    panels = len(grid.edges) - 1
    nodes, middle = len(grid.nodes) // panels, float(grid.nodes[len(grid.nodes) // 2])
    eighth = panels // 8
    for end, inner, before, near in ((0, nodes - 1, 2 * nodes - 1, eighth), (-1, -nodes, -2 * nodes, -1 - eighth)):
        z = float(grid.edges[end])
        widens = abs(z - middle) > _WIDENS * abs(float(grid.edges[near]) - middle)
        for c, f in enumerate(values):
            rest = float(f[end]) * abs(z - middle)
            if not math.isfinite(rest) or abs(rest) <= _NOTHING * float(total[c]):
                continue
            last, next_to_last = (_power(grid.nodes, f, *pair) for pair in ((end, inner), (inner, before)))
            if not widens or not abs(last - next_to_last) < _ALIKE:
                error[c] += min(abs(rest), _fallen(grid.nodes, f, end, inner, before))
            elif last <= _DIVERGES:
                beyond[c] += math.copysign(math.inf, rest)
            else:
                own = float(f[end]) * abs(z / float(grid.nodes[end])) ** -last * abs(z) / (last - 1.0)
                beyond[c] += own
                error[c] += abs(own) * min(1.0, abs(last - next_to_last) / (last - 1.0))
    return Tail(beyond, error)


def _fallen(z: Tensor, f: Tensor, end: int, inner: int, before: int) -> float:
    """The most that lies beyond the end of what falls faster there than before; infinite if it does not."""
    inside, outside = _rate(z, f, inner, before), _rate(z, f, end, inner)
    return abs(float(f[end])) / outside if outside >= inside > 0.0 else math.inf


def _rate(z: Tensor, f: Tensor, outer: int, inner: int) -> float:
    """The b for which f falls like exp(-b |z|) between two nodes."""
    ratio = float(f[outer] / f[inner]) if float(f[inner]) else math.nan
    return -math.log(ratio) / abs(float(z[outer] - z[inner])) if ratio > 0.0 else math.nan


def _power(z: Tensor, f: Tensor, outer: int, inner: int) -> float:
    """The a for which f falls like z^-a between two nodes."""
    ratio = float(f[outer] / f[inner]) if float(f[inner]) else math.nan
    return -math.log(ratio) / math.log(abs(float(z[outer] / z[inner]))) if ratio > 0.0 else math.nan
