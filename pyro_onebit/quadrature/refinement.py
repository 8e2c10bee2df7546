"""Panels that are split until they resolve what is integrated over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.quadrature.grid import NODES, ORDER, WEIGHTS, Grid, nodes_between

#: The polynomial through values at the nodes, at -1 and at 1.
_AT_ENDS = torch.from_numpy(
    np.polynomial.legendre.legvander([-1.0, 1.0], ORDER - 1)
    @ np.linalg.inv(np.polynomial.legendre.legvander(NODES.numpy(), ORDER - 1))
)


#: Trained runs take some hundreds of panels. What does not settle would take them without end.
_MOST = 5000


def _evaluate(f: Callable[[Tensor], Tensor], nodes: Tensor) -> Tensor:
    """Each function at each panel's nodes, shape ``(panels, nodes of a panel, functions)``."""
    values = f(nodes.flatten())
    if not torch.isfinite(values).all():
        raise ArithmeticError("an integrand is not finite: the parameters of this model or guide cannot be evaluated")
    return values.reshape(*nodes.shape, -1)


def _integrals(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Each panel's integral of each function, shape ``(panels, functions)``."""
    half = 0.5 * (right - left)[:, None]
    return half * torch.einsum("k,pkm->pm", WEIGHTS, _evaluate(f, nodes_between(left, right)))


def _hidden(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """What a jump between a panel's edge and the node next to it may hide of its integrals, shape ``(panels,)``.

    Seen by the function's value at the edge, against that of the polynomial through the nodes.
    """
    ends = torch.stack([left, right], 1)
    at_ends = _evaluate(f, ends)
    extrapolated = torch.einsum("ek,pkm->pem", _AT_ENDS, _evaluate(f, nodes_between(left, right)))
    return 0.5 * (1.0 + NODES[0]) * (right - left) * (at_ends - extrapolated).abs().amax((1, 2))


def refine(
    f: Callable[[Tensor], Tensor], edges: Tensor, tolerance: float = 1e-9, depth: int = 100, *, jumps: bool = False
) -> tuple[Grid, Tensor]:
    """Split panels until halving one no longer changes any function's integral over it.

    Arguments:
        f: Takes nodes ``(N,)`` to the values of all functions, ``(N, functions)``.
        edges: Where to start, ascending.
        tolerance: The change, absolute, that a panel may still show.
        depth: How often a panel may be halved (a jump is enclosed, not resolved).
        jumps: Whether to look for jumps between a panel's edge and its first or last node, too.

    Returns:
        The panels, and the functions' integrals over them, shape ``(functions,)``.

    Raises:
        ArithmeticError: If a value is not finite, or more panels than `_MOST` do not resolve the functions.
    """
    left, right = edges[:-1], edges[1:]
    coarse = _integrals(f, left, right)
    settled, total = [edges[-1:]], torch.zeros_like(coarse[0])
    for _ in range(depth):
        middle = 0.5 * (left + right)
        halves_left = torch.stack([left, middle], 1)
        halves_right = torch.stack([middle, right], 1)
        fine = _integrals(f, halves_left.flatten(), halves_right.flatten()).reshape(len(left), 2, -1)
        open_ = (fine.sum(1) - coarse).abs().amax(1) > tolerance
        if jumps and not open_.all():
            open_[~open_] = _hidden(f, left[~open_], right[~open_]) > tolerance
        # What is next to itself among numbers cannot be halved.
        open_ &= (middle > left) & (middle < right) & (right - left > 8.0 * torch.finfo(edges.dtype).eps * middle.abs())
        settled.append(left[~open_])
        total += fine[~open_].sum((0, 1))
        left, right = halves_left[open_].flatten(), halves_right[open_].flatten()
        coarse = fine[open_].flatten(0, 1)
        if sum(map(len, settled)) + len(left) > _MOST:
            raise ArithmeticError(
                f"more than {_MOST} panels do not resolve an integrand: the densities of this model or guide are too "
                f"large, too jagged or too narrow"
            )
        if not len(left):
            break
    return Grid(torch.cat([*settled, left]).sort().values), total + coarse.sum(0)
