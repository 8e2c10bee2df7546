"""A normal restricted to one side of a bound."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Normal, constraints
from torch.special import log_ndtr, ndtri

from pyro_onebit.distributions.normal import ndtr


class TruncatedNormal(TorchDistribution):
    """A normal restricted to one side of a bound, normalised.

    Samples have gradients in all parameters. But where parameters move the bound, E[d log q] is not zero:
    estimators that count on it (sticking the landing, wake-sleep) are wrong for this family.

    Arguments:
        loc: The normal's mean before truncation.
        scale: Its standard deviation before truncation.
        bound: Where it is cut off.
        side: 1 if it lies above the bound, -1 if below. All of one shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "bound": constraints.real,
        "side": constraints.real,
    }
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, bound: Tensor, side: Tensor) -> None:
        self.loc, self.scale, self.bound, self.side = torch.broadcast_tensors(loc, scale, bound, side)
        super().__init__(self.loc.shape)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """The real numbers: beyond the bound a density of 0 is a valid answer."""
        return constraints.real

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """The same in a larger batch."""
        return TruncatedNormal(*(part.expand(batch_shape) for part in (self.loc, self.scale, self.bound, self.side)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log density, minus infinity beyond the bound."""
        share = log_ndtr(self.side * (self.loc - self.bound) / self.scale)
        inside = self.side * (value - self.bound) >= 0
        return torch.where(inside, Normal(self.loc, self.scale).log_prob(value) - share, -torch.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The mass below a value."""
        # The mass further from the bound than the value, and of all that is kept.
        beyond, kept = (ndtr(self.side * (self.loc - at) / self.scale) for at in (value, self.bound))
        share = (beyond / kept).clamp(max=1.0)
        return torch.where(self.side > 0, 1.0 - share, share)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples, shape ``sample_shape + batch_shape``."""
        return self.from_noise(torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype))

    def from_noise(self, noise: Tensor) -> Tensor:
        """The quantiles of standard normal noise ``(..., *batch_shape)``."""
        loc, scale, bound, side, target = (t.double() for t in (self.loc, self.scale, self.bound, self.side, noise))
        # The mass further from the bound than the quantile: the tail that keeps its digits far out.
        beyond = ndtr(-side * target) * ndtr(side * (loc - bound) / scale)
        z = loc - side * scale * ndtri(beyond)
        # Rounding must not carry a sample over the bound.
        return torch.where(side * (z - bound) > 0, z, bound).to(noise.dtype)
