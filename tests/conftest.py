"""What several test modules share: toys with closed forms, and runs trained once."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from pyro_onebit import Config, Run, build, fit


class FixedGuide(nn.Module):
    """N(-loc, scale^2) for codeword 0 and N(loc, scale^2) for codeword 1."""

    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self.loc, self.scale = loc, scale

    def q_z1(self, x: torch.Tensor) -> Independent:
        mean = self.loc * (2 * x.mean(-1, keepdim=True) - 1)
        return Independent(Normal(mean, torch.full_like(mean, self.scale)), 1)


class HardDecoder(nn.Module):
    """Each dimension is codeword 1's above z1 = 0, but for an error."""

    def __init__(self, ndims: int, error: float) -> None:
        super().__init__()
        self.ndims, self.error = ndims, error

    def p_x(self, z1: torch.Tensor) -> Independent:
        error = torch.full_like(z1, self.error)
        probs = torch.where(z1 < 0, error, 1 - error)
        return Independent(Bernoulli(probs=probs.expand(*z1.shape[:-1], self.ndims)), 1)


class LinearDecoder(nn.Module):
    """Logits slope times z1."""

    def __init__(self, ndims: int, slope: float) -> None:
        super().__init__()
        self.ndims, self.slope = ndims, slope

    def p_x(self, z1: torch.Tensor) -> Independent:
        return Independent(Bernoulli(logits=(self.slope * z1).expand(*z1.shape[:-1], self.ndims)), 1)


@cache
def _trained(layers: int, ndims: int, prob: float) -> Run:
    config = Config(ndims=ndims, layers=layers, prob=prob)
    return fit(*build(config), config)


@pytest.fixture(scope="session")
def trained() -> Callable[..., Run]:
    """Runs by the default recipe, trained once: ``trained(layers, ndims, prob)``."""

    def get(layers: int, ndims: int, prob: float = 0.5) -> Run:
        return _trained(layers, ndims, prob)

    return get
