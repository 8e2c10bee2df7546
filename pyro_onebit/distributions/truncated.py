"""A normal restricted to an interval."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Normal, constraints
from torch.special import log_ndtr, ndtri

from pyro_onebit.distributions.normal import ndtr


class TruncatedNormal(TorchDistribution):
    """A normal restricted to one side of a bound, or to what lies between that and a far end, normalised.

    Samples have gradients in all parameters. But where parameters move the bound, E[d log q] is not zero:
    estimators that count on it (sticking the landing, wake-sleep) are wrong for this family.

    Arguments:
        loc: The normal's mean before truncation.
        scale: Its standard deviation before truncation.
        bound: Where it is cut off.
        side: 1 if it lies above the bound, -1 if below.
        end: Where it ends on that side; None: nowhere. All of one shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "bound": constraints.real,
        "side": constraints.real,
    }
    has_rsample = True
    #: Beyond the bound a density of 0 is a valid answer.
    support = constraints.real

    def __init__(self, loc: Tensor, scale: Tensor, bound: Tensor, side: Tensor, end: Tensor | None = None) -> None:
        self._parts = torch.broadcast_tensors(loc, scale, bound, side, *([] if end is None else [end]))
        self.loc, self.scale, self.bound, self.side, *ends = self._parts
        self.end = ends[0] if ends else None
        super().__init__(self.loc.shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """The same in a larger batch."""
        return TruncatedNormal(*(part.expand(batch_shape) for part in self._parts))

    def log_prob(self, value: Tensor) -> Tensor:
        """log density, minus infinity outside."""
        share = log_ndtr(self.side * (self.loc - self.bound) / self.scale)
        inside = self.side * (value - self.bound) >= 0
        if self.end is not None:
            lost = log_ndtr(self.side * (self.loc - self.end) / self.scale)
            share = share + torch.log1p(-torch.exp(lost - share))
            inside = inside & (self.side * (self.end - value) >= 0)
        return torch.where(inside, Normal(self.loc, self.scale).log_prob(value) - share, -torch.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The mass below a value."""
        # The mass further from the bound than the value, and of all that is kept; less what lies beyond the end.
        ends = (value, self.bound) if self.end is None else (value, self.bound, self.end)
        beyond, kept, *lost = (ndtr(self.side * (self.loc - at) / self.scale) for at in ends)
        share = ((beyond - sum(lost)) / (kept - sum(lost))).clamp(0.0, 1.0)
        return torch.where(self.side > 0, 1.0 - share, share)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples, shape ``sample_shape + batch_shape``."""
        return self.from_noise(torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype))

    def from_noise(self, noise: Tensor) -> Tensor:
        """The quantiles of standard normal noise ``(..., *batch_shape)``."""
        target, loc, scale, bound, side, *end = (t.double() for t in (noise, *self._parts))
        kept, *lost = (ndtr(side * (loc - at) / scale) for at in (bound, *end))
        # The mass further from the bound than the quantile: the tail that keeps its digits far out.
        beyond = ndtr(-side * target) * (kept - sum(lost)) + sum(lost)
        z = loc - side * scale * ndtri(beyond)
        # Rounding must not carry a sample over the bound, or the end.
        z = torch.where(side * (z - bound) > 0, z, bound)
        for at in end:
            z = torch.where(side * (at - z) > 0, z, at)
        return z.to(noise.dtype)
