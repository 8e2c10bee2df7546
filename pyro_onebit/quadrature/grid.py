"""Composite Gauss-Legendre quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

ORDER = 12
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(ORDER))


def _cumulative_weights() -> Tensor:
    """Integrals from -1 to each node of the polynomials that are 1 at one node and 0 at the others.

    Such a polynomial is sum_k (k + 1/2) w_j P_k(x_j) P_k(x), and the integral of (2k + 1) P_k is
    P_{k+1} - P_{k-1}, with P_{-1} = -1 to make it vanish at -1.
    """
    legendre = np.polynomial.legendre.legvander(NODES.numpy(), ORDER)
    before = np.concatenate([-np.ones((ORDER, 1)), legendre[:, :-2]], 1)
    return 0.5 * torch.from_numpy((legendre[:, 1:] - before) @ legendre[:, :-1].T) * WEIGHTS


_CUMULATIVE = _cumulative_weights()
#: From values at the nodes to the coefficients of Legendre polynomials.
_TO_LEGENDRE = torch.from_numpy(np.linalg.inv(np.polynomial.legendre.legvander(NODES.numpy(), ORDER - 1)))


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
        return nodes_between(self.edges[:-1], self.edges[1:]).flatten()

    @cached_property
    def weights(self) -> Tensor:
        """The nodes' weights, shape ``(panels * 12,)``."""
        return (0.5 * torch.diff(self.edges)[:, None] * WEIGHTS).flatten()

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
        panels = values.unflatten(-1, (-1, ORDER))
        inside = 0.5 * self.widths[:, None] * (panels @ _CUMULATIVE.T)
        whole = 0.5 * self.widths * (panels @ WEIGHTS)
        return (inside + (whole.cumsum(-1) - whole)[..., None]).flatten(-2)

    def invert(self, cumulative: Tensor, share: Tensor) -> Tensor:
        """Where cumulatives at the nodes, ``(..., N)``, reach shares ``(..., M)`` of their total; linear between."""
        level = share.double() * cumulative[..., -1:]
        upper = torch.searchsorted(cumulative, level).clamp(1, cumulative.shape[-1] - 1)
        low, high = cumulative.gather(-1, upper - 1), cumulative.gather(-1, upper)
        part = ((level - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0.0, 1.0)
        return torch.lerp(self.nodes[upper - 1], self.nodes[upper], part)

    def quantiles(self, density: Tensor, share: Tensor) -> Tensor:
        """Where the integral of a density at the nodes, ``(N,)``, reaches shares ``(M,)`` of its total.

        By Newton's method on a cubic spline through the integral and the density.
        """
        cumulative = self.cumulative(density)
        z = self.invert(cumulative[None], share[None])[0]
        spline = CubicHermiteSpline(self.nodes.numpy(), cumulative.numpy(), density.numpy())
        slope, level = spline.derivative(), (share * cumulative[-1]).numpy()
        at = z.numpy()
        for _ in range(4):
            with np.errstate(divide="ignore", invalid="ignore"):
                step = (spline(at) - level) / slope(at)
            at = np.where(np.isfinite(step), at - step, at).clip(self.nodes[0], self.nodes[-1])
        return torch.from_numpy(at)

    def interpolated(self, values: Tensor, z: Tensor) -> Tensor:
        """The panels' polynomials through values at the nodes, ``(N,)``, at z ``(K,)`` within the grid, ``(K,)``."""
        panel = (torch.searchsorted(self.edges, z) - 1).clamp(0, len(self.edges) - 2)
        t = ((z - self.midpoints[panel]) / (0.5 * self.widths[panel])).clamp(-1.0, 1.0)
        coefficients = values.unflatten(0, (-1, ORDER)) @ _TO_LEGENDRE.T
        return (torch.from_numpy(np.polynomial.legendre.legvander(t.numpy(), ORDER - 1)) * coefficients[panel]).sum(-1)

    def halved(self) -> Grid:
        """The same range with every panel cut in two."""
        return Grid(torch.cat([self.edges, self.midpoints]).sort().values)


def nodes_between(left: Tensor, right: Tensor) -> Tensor:
    """The nodes of panels given by their edges, shape ``(panels, nodes of a panel)``."""
    return 0.5 * (left + right)[:, None] + 0.5 * (right - left)[:, None] * NODES
