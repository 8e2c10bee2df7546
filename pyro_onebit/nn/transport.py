"""The increasing map that carries a mixture of normals to the standard normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.special import ndtri

from pyro_onebit.distributions import ndtr

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
#: Standard deviations of the outer modes beyond which the map continues as a straight line.
_REACH = 7.5
#: Places at which the map is tabulated for its inverse, and Newton steps from there: to the last digits.
_PLACES, _NEWTON_STEPS = 2048, 2
#: Where the map is this near to a cut, in units of z2, its series has more digits than the quantile.
_NEAR = 3e-5


class Transport(nn.Module):
    r""":math:`h = \Phi^{-1} \circ F`, where F is the distribution function of a mixture of M normals, and its inverse.

    If z1 is the mixture's, :math:`h(z_1)` is standard normal. A wide gap between two modes becomes a sliver around
    a cut, the normal quantile of the mass below the gap. There F is told from that mass by the tails of the modes, not
    by a difference of numbers near it, so that h less the cut keeps all its digits. Values are computed in double
    precision and derivatives are analytic: :math:`h' = q / (\phi \circ h)`, q the mixture's density.

    Arguments:
        loc: Means of the M >= 2 components, in any order.
        scale: Their standard deviations.
        probs: Their probabilities.
    """

    loc: Tensor
    scale: Tensor
    probs: Tensor
    cuts: Tensor
    table: Tensor

    def __init__(self, loc: Sequence[float], scale: Sequence[float], probs: Sequence[float]) -> None:
        super().__init__()
        components = sorted(zip(loc, scale, probs, strict=True))
        for name, values in zip(("loc", "scale", "probs"), zip(*components, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))
        # What follows from these is not saved.
        self.register_buffer("cuts", self.probs[1:].clone(), persistent=False)
        self.register_buffer("table", self.loc.new_zeros(2, _PLACES), persistent=False)
        self.register_load_state_dict_post_hook(_tabulate)
        _tabulate(self)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """h and log h' at z, each of its shape, with gradients."""
        inside = z.clamp(self.table[0, 0], self.table[0, -1])
        with torch.no_grad():
            cut, above = self._score(inside.double())
            h = (cut + above).to(z.dtype)
            slope = self._slope(inside, h)
            beyond = slope * (z - inside)
        # Its value, and its derivative.
        within = h + slope * (inside - inside.detach())
        log_slope = self._log_density(inside) + _HALF_LOG_2PI + 0.5 * within.square()
        return h + beyond + slope * (z - z.detach()), log_slope

    @torch.no_grad()
    def _solve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Where the map is h, of float64, and its slope there."""
        z, values = self.table
        h_inside = h.clamp(values[0], values[-1])
        i = torch.searchsorted(values, h_inside.contiguous()).clamp(1, _PLACES - 1)
        low, high = z[i - 1], z[i]
        at = torch.lerp(low, high, ((h_inside - values[i - 1]) / (values[i] - values[i - 1])).clamp(0.0, 1.0))
        for _ in range(_NEWTON_STEPS):
            cut, above = self._score(at)
            at = torch.clamp(at - (above - (h_inside - cut)) / self._slope(at, cut + above), low, high)
        slope = self._slope(at, h_inside)
        return at + (h - h_inside) / slope, slope

    def inverse(self, h: Tensor) -> Tensor:
        """The z at which the map is h, of its shape, with gradients."""
        z, slope = (part.to(h.dtype) for part in self._solve(h.double()))
        return z + (h - h.detach()) / slope

    def _score(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest cut, and how far h lies above it, at z of float64."""
        a = (z[..., None] - self.loc) / self.scale
        below, above = self.probs * ndtr(a), self.probs * ndtr(-a)
        # The mass below z less that below each cut: what the upper modes have below z, less what the lower have above.
        upper = torch.ones(len(self.probs), len(self.cuts), dtype=z.dtype, device=z.device).tril(-1)
        excess = below @ upper - above @ (1.0 - upper)
        w = excess * torch.exp(0.5 * self.cuts.square() + _HALF_LOG_2PI)
        nearest = w.abs().argmin(-1, keepdim=True)
        w, t = w.gather(-1, nearest)[..., 0], self.cuts[nearest[..., 0]]
        series = w + t * w**2 / 2.0 + (2.0 * t**2 + 1.0) * w**3 / 6.0
        # The smaller tail keeps its digits.
        lower, rest = below.sum(-1), above.sum(-1)
        score = torch.where(lower < rest, ndtri(lower), -ndtri(rest))
        return t, torch.where(w.abs() < _NEAR, series, score - t)

    def _slope(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.exp(self._log_density(z) + _HALF_LOG_2PI + 0.5 * h.square())

    def _log_density(self, z: Tensor) -> Tensor:
        loc, scale, weights = (part.to(z.dtype) for part in (self.loc, self.scale, (self.probs / self.scale).log()))
        return torch.logsumexp(weights - 0.5 * ((z[..., None] - loc) / scale).square(), -1) - _HALF_LOG_2PI


@torch.no_grad()
def _tabulate(transport: Transport, _: Any = None) -> None:
    """Compute in place what follows from a mixture: a recorded step holds it by reference."""
    loc, scale = transport.loc, transport.scale
    transport.cuts.copy_(ndtri(transport.probs.cumsum(0)[:-1]))
    low, high = (loc - _REACH * scale).min(), (loc + _REACH * scale).max()
    transport.table[0] = torch.lerp(low, high, torch.linspace(0.0, 1.0, _PLACES, dtype=low.dtype, device=low.device))
    cut, above = transport._score(transport.table[0])
    transport.table[1] = cut + above
