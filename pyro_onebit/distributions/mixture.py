"""A mixture of normals with reparameterised samples."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Categorical, MixtureSameFamily
from torch import Tensor
from torch.distributions import Normal
from torch.special import ndtri

from pyro_onebit.distributions.normal import ndtr

#: Steps of the bracketed Newton iteration for a mixture's quantiles.
_NEWTON_STEPS = 16


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
        return self.from_noise(torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype))

    def from_noise(self, noise: Tensor) -> Tensor:
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
