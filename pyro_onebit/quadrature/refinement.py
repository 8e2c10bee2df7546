"""Panels that are split until they resolve what is integrated over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_onebit.quadrature.grid import ORDER, Grid, legendre, rule

_RULE = rule(ORDER)
#: The polynomial through values at the nodes, at -1 and at 1.
_AT_ENDS = legendre(torch.tensor([-1.0, 1.0], dtype=torch.float64), ORDER - 1) @ _RULE.to_legendre


def _evaluate(f: Callable[[Tensor], Tensor], nodes: Tensor) -> Tensor:
    """Each function at each panel's nodes, shape ``(panels, nodes of a panel, functions)``."""
    values = f(nodes.flatten())
    if not torch.isfinite(values).all():
        raise ArithmeticError("an integrand is not finite: the parameters of this model or guide cannot be evaluated")
    return values.reshape(*nodes.shape, -1)


def _integrals(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Each panel's integral of each function, shape ``(panels, functions)``."""
    half = 0.5 * (right - left)[:, None]
    return half * torch.einsum("k,pkm->pm", _RULE.weights, _evaluate(f, _RULE.between(left, right)))


def _hidden(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """What a jump between a panel's edge and the node next to it may hide of its integrals, shape ``(panels,)``.

    Seen by the function's value at the edge, against that of the polynomial through the nodes.
    """
    ends = torch.stack([left, right], 1)
    # At an edge a density may well be infinite.
    at_ends = f(ends.flatten()).nan_to_num(posinf=1e300).reshape(*ends.shape, -1)
    extrapolated = torch.einsum("ek,pkm->pem", _AT_ENDS, _evaluate(f, _RULE.between(left, right)))
    return 0.5 * (1.0 + _RULE.nodes[0]) * (right - left) * ((at_ends - extrapolated).abs() / scale).amax((1, 2))


def refine(
    f: Callable[[Tensor], Tensor],
    edges: Tensor,
    tolerance: float = 1e-9,
    depth: int = 100,
    *,
    jumps: bool = False,
    most: int = 5000,
) -> Panels:
    """Split panels until halving one no longer changes any function's integral over it.

    Arguments:
        f: Takes nodes ``(N,)`` to the values of all functions, ``(N, functions)``.
        edges: Where to start, ascending.
        tolerance: The change that a panel may still show: absolute, and of a function whose panels' integrals have
            sizes that add up to more than 1, relative to that.
        depth: How often a panel may be halved (a jump is enclosed, not resolved).
        jumps: Whether to look for jumps between a panel's edge and its first or last node, too.
        most: Panels that are not exceeded: what does not settle would take them without end.

    Returns:
        The panels, with the functions' integrals over them.

    Raises:
        ArithmeticError: If a value is not finite, or so many panels do not resolve the functions.
    """
    left, right = edges[:-1], edges[1:]
    coarse = _integrals(f, left, right)
    settled, done = [left[:0]], [coarse[:0]]
    size = torch.zeros_like(coarse[0])
    for _ in range(depth):
        middle = 0.5 * (left + right)
        halves_left = torch.stack([left, middle], 1)
        halves_right = torch.stack([middle, right], 1)
        fine = _integrals(f, halves_left.flatten(), halves_right.flatten()).reshape(len(left), 2, -1)
        scale = (size + coarse.abs().sum(0)).clamp_min(1.0)
        open_ = ((fine.sum(1) - coarse).abs() / scale).amax(1) > tolerance
        if jumps and not open_.all():
            open_[~open_] = _hidden(f, left[~open_], right[~open_], scale) > tolerance
        # What is next to itself among numbers cannot be halved.
        open_ &= (middle > left) & (middle < right) & (right - left > 8.0 * torch.finfo(edges.dtype).eps * middle.abs())
        settled.append(left[~open_])
        done.append(fine[~open_].sum(1))
        size += fine[~open_].abs().sum((0, 1))
        left, right = halves_left[open_].flatten(), halves_right[open_].flatten()
        coarse = fine[open_].flatten(0, 1)
        if sum(map(len, settled)) + len(left) > most:
            raise ArithmeticError(
                f"more than {most} panels do not resolve an integrand: the densities of this model or guide are too "
                f"large, too jagged or too narrow"
            )
        if not len(left):
            break
    left, order = torch.cat([*settled, left]).sort()
    integrals = torch.cat([*done, coarse])[order]
    return Panels(torch.cat([left, edges[-1:]]), integrals)


@dataclass(frozen=True)
class Panels:
    """Panels that resolve functions, and what these integrate to over each of them.

    Arguments:
        edges: The panels' edges, ascending, shape ``(panels + 1,)``.
        integrals: Shape ``(panels, functions)``.
    """

    edges: Tensor
    integrals: Tensor

    @property
    def grid(self) -> Grid:
        """Quadrature on these panels."""
        return Grid(self.edges)

    def without_empty_ends(self) -> Panels:
        """The same without outermost panels that hold next to nothing of any function."""
        scale = self.integrals.abs().sum(0).clamp_min(1.0)
        [full] = torch.nonzero((self.integrals.abs() > 1e-15 * scale).any(1), as_tuple=True)
        inner = slice(int(full[0]), int(full[-1]) + 1) if len(full) else slice(len(self.integrals))
        return Panels(self.edges[inner.start : inner.stop + 1], self.integrals[inner])


def merge(f: Callable[[Tensor], Tensor], panels: Panels, tolerance: float) -> Tensor:
    """Edges without those between neighbours that one panel can stand for, by the measure of `refine`.

    Arguments:
        f: As in `refine`.
        panels: What that gave.
        tolerance: The change that a function's integral over two panels may show.
    """
    scale = panels.integrals.abs().sum(0).clamp_min(1.0)
    edges, integrals = panels.edges, panels.integrals.clone()
    # Edges that have turned out to be needed, as long as the panels beside them stay what they are.
    needed = torch.zeros(len(edges), dtype=torch.bool)
    needed[[0, -1]] = True
    while True:
        # Every second of a run of edges that are not known to be needed: panels that are merged must not overlap.
        tried = _every_second(~needed)
        [at] = torch.nonzero(tried, as_tuple=True)
        if not len(at):
            return edges
        whole = _integrals(f, edges[at - 1], edges[at + 1])
        fits = ((whole - integrals[at - 1] - integrals[at]).abs() / scale).amax(1) <= tolerance
        needed[at[~fits]] = True
        gone = at[fits]
        # What has become wider may go with its neighbours again.
        needed[gone - 1], needed[gone + 1] = False, False
        needed[[0, -1]] = True
        integrals[gone - 1] = whole[fits]
        kept = torch.ones(len(edges), dtype=torch.bool)
        kept[gone] = False
        # Of two panels the left one stands for both.
        integrals, edges, needed = integrals[kept[:-1]], edges[kept], needed[kept]


def _every_second(flags: Tensor) -> Tensor:
    """The first, third, … of each run of flags."""
    number = torch.arange(len(flags))
    start = torch.where(flags, -1, number).cummax(0).values
    return flags & ((number - start) % 2 == 1)
