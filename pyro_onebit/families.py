"""Univariate families that the libraries lack, each an increasing function of standard normal noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import Categorical, MixtureSameFamily, TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution, constraints
from torch.special import log_ndtr, ndtri

__all__ = ["NormalMixture", "TruncatedNormal", "transport"]

#: Steps of the bracketed Newton iteration for a mixture's quantiles.
_NEWTON_STEPS = 16


def ndtr(x: Tensor) -> Tensor:
    """The standard normal distribution function, with all digits in its lower tail (`torch.special.ndtr` has none)."""
    return 0.5 * torch.erfc(-x * math.sqrt(0.5))


def transport(distribution: Any, noise: Tensor) -> Tensor | None:
    """Noise of the distribution's shape, standard normal, carried to it with gradients; None if it is not known how."""
    if hasattr(distribution, "from_normal"):
        carried: Tensor = distribution.from_normal(noise)
        return carried
    if isinstance(distribution, Normal):
        return distribution.loc + distribution.scale * noise
    if isinstance(distribution, Independent):
        return transport(distribution.base_dist, noise)
    if isinstance(distribution, TransformedDistribution):
        value = transport(distribution.base_dist, noise)
        for transform in distribution.transforms if value is not None else ():
            value = transform(value)
        return value
    try:
        # Beyond eight standard deviations the normal distribution function is 1, and the quantile infinite.
        return distribution.icdf(ndtr(noise.double().clamp(-8.0, 8.0))).to(noise.dtype)
    except (AttributeError, NotImplementedError):
        return None


class NormalMixture(MixtureSameFamily):
    """A mixture of K normals whose samples have a gradient, also in the weights.

    A sample is the mixture's quantile of its noise, and moves with the parameters so that its quantile stays
    what it is: implicit reparameterisation (Figurnov, Mohamed and Mnih 2018).

    Arguments:
        logits: Unnormalised log-weights, shape ``(..., K)``.
        loc: Means, shape ``(..., K)``.
        scale: Standard deviations, shape ``(..., K)``.
    """

    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        super().__init__(Categorical(logits=logits), Normal(loc, scale))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        normals = self.component_distribution
        return self.mixture_distribution.logits, normals.loc, normals.scale

    def expand(self, batch_shape: Any, _instance: Any = None) -> NormalMixture:
        """The same in a larger batch."""
        return NormalMixture(*(part.expand(*batch_shape, part.shape[-1]) for part in self._parts()))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples, shape ``sample_shape + batch_shape``."""
        loc = self.component_distribution.loc
        return self.from_normal(torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype))

    def from_normal(self, noise: Tensor) -> Tensor:
        """The quantiles of standard normal noise ``(..., *batch_shape)``."""
        # Far out the density underflows in single precision, and the gradient is a ratio to it.
        logits, loc, scale = (part.double() for part in self._parts())
        weights, target = logits.softmax(-1), noise.double()
        with torch.no_grad():
            z = _quantile(weights, loc, scale, target)
            density = _density(weights, loc, scale, z).clamp_min(torch.finfo(z.dtype).tiny)
        # The smaller tail keeps its digits.
        sign = torch.where(target < 0, 1.0, -1.0)
        tail = _tail(weights, loc, scale, z, sign)
        return (z - sign * (tail - tail.detach()) / density).to(noise.dtype)


def _density(weights: Tensor, loc: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    return (weights * Normal(loc, scale).log_prob(z[..., None]).exp()).sum(-1)


def _tail(weights: Tensor, loc: Tensor, scale: Tensor, z: Tensor, sign: Tensor) -> Tensor:
    """The mixture's mass below z where sign is 1, above where it is -1."""
    return (weights * ndtr(sign[..., None] * (z[..., None] - loc) / scale)).sum(-1)


def _quantile(weights: Tensor, loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Where the mixture's distribution function is the normal one's at `noise`.

    By Newton's method on the normal score of the distribution function, which for one component is linear.
    """
    # A mixture's quantile lies between those of its components.
    quantiles = loc + scale * noise[..., None]
    low, high = quantiles.amin(-1), quantiles.amax(-1)
    z = 0.5 * (low + high)
    sign = torch.where(noise < 0, 1.0, -1.0)
    for _ in range(_NEWTON_STEPS):
        score = sign * ndtri(_tail(weights, loc, scale, z, sign))
        low, high = torch.where(score > noise, low, z), torch.where(score > noise, z, high)
        newton = z - (score - noise) * Normal(0.0, 1.0).log_prob(score).exp() / _density(weights, loc, scale, z)
        z = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return z


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
        return self.from_normal(torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype))

    def from_normal(self, noise: Tensor) -> Tensor:
        """The quantiles of standard normal noise ``(..., *batch_shape)``."""
        loc, scale, bound, side, target = (t.double() for t in (self.loc, self.scale, self.bound, self.side, noise))
        # The mass further from the bound than the quantile: the tail that keeps its digits far out.
        beyond = ndtr(-side * target) * ndtr(side * (loc - bound) / scale)
        z = loc - side * scale * ndtri(beyond)
        # Rounding must not carry a sample over the bound.
        return torch.where(side * (z - bound) > 0, z, bound).to(noise.dtype)
