"""The standard normal distribution: as a prior, and its distribution function."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor


def ndtr(x: Tensor) -> Tensor:
    """The standard normal distribution function, with all digits in its lower tail (`torch.special.ndtr` has none)."""
    return 0.5 * torch.erfc(-x * math.sqrt(0.5))


def standard_normal(like: Tensor) -> Independent:
    """N(0, 1) with event shape ``(1,)``, of the dtype and device of `like`: the top latent's prior."""
    return Normal(like.new_zeros(1), like.new_ones(1)).to_event(1)
