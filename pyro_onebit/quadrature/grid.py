"""Composite Gauss-Legendre quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

#: Nodes of a panel, and of the same panel where that is to be checked.
ORDER, CHECK = 12, 16


def legendre(t: Tensor, degree: int) -> Tensor:
    """Legendre polynomials up to a degree, shape ``(..., degree + 1)``."""
    return torch.from_numpy(np.polynomial.legendre.legvander(t.numpy(), degree))


def _integrated(t: Tensor, order: int) -> Tensor:
    """Integrals from -1 to t of the Legendre polynomials below an order, shape ``(..., order)``.

    Those of (2k + 1) P_k are P_{k+1} - P_{k-1}, with P_{-1} = -1 to make them vanish at -1.
    """
    values = legendre(t, order)
    before = torch.cat([-torch.ones_like(values[..., :1]), values[..., :-2]], -1)
    return (values[..., 1:] - before) / (2.0 * torch.arange(order, dtype=values.dtype) + 1.0)


class Rule:
    """Gauss-Legendre quadrature on [-1, 1].

    Arguments:
        order: The number of nodes.
    """

    def __init__(self, order: int) -> None:
        self.nodes, self.weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(order))
        #: From values at the nodes to the coefficients of Legendre polynomials.
        self.to_legendre = torch.linalg.inv(legendre(self.nodes, order - 1))
        #: From values at the nodes to the integrals from -1 to each node.
        self.cumulative = _integrated(self.nodes, order) @ self.to_legendre

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """The nodes of panels given by their edges, shape ``(panels, nodes of a panel)``."""
        return 0.5 * (left + right)[:, None] + 0.5 * (right - left)[:, None] * self.nodes


rule = lru_cache(Rule)


def normal_nodes(loc: np.ndarray, scale: np.ndarray, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes for integrals over normals, and their weights: of so many panels within 9 standard deviations of each."""
    ends = [m + s * np.linspace(-9.0, 9.0, panels + 1) for m, s in zip(loc, scale, strict=True)]
    edges, own = np.unique(np.concatenate(ends)), rule(CHECK)
    half = 0.5 * np.diff(edges)[:, None]
    return (edges[:-1, None] + half + half * own.nodes.numpy()).ravel(), (half * own.weights.numpy()).ravel()


@dataclass(frozen=True)
class Grid:
    """Composite Gauss-Legendre quadrature.

    Arguments:
        edges: The panels' edges, ascending, shape ``(panels + 1,)``, float64.
        order: The number of a panel's nodes.
    """

    edges: Tensor
    order: int = ORDER

    @property
    def _rule(self) -> Rule:
        return rule(self.order)

    @cached_property
    def nodes(self) -> Tensor:
        """The nodes, ascending, shape ``(panels * order,)``."""
        return self._rule.between(self.edges[:-1], self.edges[1:]).flatten()

    @cached_property
    def weights(self) -> Tensor:
        """The nodes' weights, shape ``(panels * order,)``."""
        return (0.5 * self.widths[:, None] * self._rule.weights).flatten()

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
        panels = values.unflatten(-1, (-1, self.order))
        inside = 0.5 * self.widths[:, None] * (panels @ self._rule.cumulative.T)
        whole = 0.5 * self.widths * (panels @ self._rule.weights)
        return (inside + (whole.cumsum(-1) - whole)[..., None]).flatten(-2)

    def invert(self, cumulative: Tensor, share: Tensor) -> Tensor:
        """Where cumulatives at the nodes, ``(..., N)``, reach shares ``(..., M)`` of their total; linear between."""
        level = share.double() * cumulative[..., -1:]
        upper = torch.searchsorted(cumulative, level).clamp(1, cumulative.shape[-1] - 1)
        low, high = cumulative.gather(-1, upper - 1), cumulative.gather(-1, upper)
        part = ((level - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0.0, 1.0)
        return torch.lerp(self.nodes[upper - 1], self.nodes[upper], part)

    def quantiles(self, density: Tensor, share: Tensor) -> Tensor:
        """Where the integral of a density at the nodes, ``(N,)``, reaches shares ``(K,)`` of its total, ``(K,)``.

        By Newton's method, from where `invert` has it.
        """
        cumulative = self.cumulative(density)
        z, level = self.invert(cumulative[None], share[None])[0], share * cumulative[-1]
        for _ in range(4):
            step = (self.integral_to(density, z) - level) / self.interpolated(density, z)
            z = torch.where(torch.isfinite(step), z - step, z).clamp(self.edges[0], self.edges[-1])
        return z

    def interpolated(self, values: Tensor, z: Tensor) -> Tensor:
        """The panels' polynomials through values at the nodes, ``(N,)``, at z ``(K,)`` within the grid, ``(K,)``."""
        panel, t = self._locate(z)
        coefficients = values.unflatten(0, (-1, self.order)) @ self._rule.to_legendre.T
        return (legendre(t, self.order - 1) * coefficients[panel]).sum(-1)

    def integral_to(self, values: Tensor, z: Tensor) -> Tensor:
        """The integral from the first edge to z ``(K,)``, of a function given at the nodes, ``(N,)``; ``(K,)``."""
        panel, t = self._locate(z)
        panels = values.unflatten(0, (-1, self.order))
        half = 0.5 * self.widths
        whole = half * (panels @ self._rule.weights)
        inside = half[panel] * (_integrated(t, self.order) * (panels @ self._rule.to_legendre.T)[panel]).sum(-1)
        return (whole.cumsum(0) - whole)[panel] + inside

    def distance(self, density: Tensor, draws: Tensor) -> float:
        """The largest distance of draws' ``(K,)`` distribution function from that of a density at the nodes, ``(N,)``.

        The Kolmogorov-Smirnov statistic. Draws beyond the grid count as drawn at its ends.
        """
        z = draws.sort().values
        share = torch.arange(len(z) + 1, dtype=z.dtype) / len(z)
        at = self.integral_to(density, z.clamp(self.edges[0], self.edges[-1])).clamp(0.0, 1.0)
        return float(torch.maximum((at - share[:-1]).abs(), (at - share[1:]).abs()).max())

    def _locate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The panels that z lie in, and where in them, from -1 to 1."""
        panel = (torch.searchsorted(self.edges, z) - 1).clamp(0, len(self.edges) - 2)
        # A panel between neighbouring numbers may have no inside.
        return panel, ((z - self.midpoints[panel]) / (0.5 * self.widths[panel])).nan_to_num(nan=0.0).clamp(-1.0, 1.0)

    def halved(self) -> Grid:
        """The same range with every panel cut in two."""
        return Grid(torch.cat([self.edges, self.midpoints]).sort().values, self.order)

    def checked(self) -> Grid:
        """A grid to check this one by: the same panels with more nodes, or, if it is such a grid, halved ones."""
        return Grid(self.edges, CHECK) if self.order == ORDER else self.halved()
