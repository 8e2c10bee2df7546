"""Samples of a distribution as a function of standard normal noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution

from pyro_onebit.distributions.normal import ndtr


def sample_from_noise(distribution: Any, noise: Tensor) -> Tensor | None:
    """Noise of the distribution's shape, standard normal, carried to it with gradients; None if it is not known how."""
    if hasattr(distribution, "from_noise"):
        return distribution.from_noise(noise)
    if isinstance(distribution, Normal):
        return distribution.loc + distribution.scale * noise
    if isinstance(distribution, Independent):
        return sample_from_noise(distribution.base_dist, noise)
    if isinstance(distribution, TransformedDistribution):
        value = sample_from_noise(distribution.base_dist, noise)
        for transform in distribution.transforms if value is not None else ():
            value = transform(value)
        return value
    if hasattr(distribution, "transform") and hasattr(distribution, "base"):  # zuko's, from values to noise
        value = sample_from_noise(distribution.base, noise)
        return None if value is None else distribution.transform.inv(value)
    try:
        # Beyond eight standard deviations the normal distribution function is 1, and the quantile infinite.
        return distribution.icdf(ndtr(noise.double().clamp(-8.0, 8.0))).to(noise.dtype)
    except (AttributeError, NotImplementedError):
        return None
