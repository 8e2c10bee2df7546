"""What several test modules share: toys with closed forms, and runs trained once."""

import math
import os
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal
from torch.nn.functional import logsigmoid

from pyro_onebit import Config, Run, build, exact, fit, load_run, save_run
from pyro_onebit.runs import run_name

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes side by side, each with all the cores' threads, are many times slower.
    torch.set_num_threads(1)


class FixedGuide(nn.Module):
    """N(-loc, scale^2) for codeword 0 and N(loc, scale^2) for codeword 1."""

    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self.loc, self.scale = loc, scale

    def q_z1(self, x: torch.Tensor) -> Independent:
        mean = self.loc * (2 * x.mean(-1, keepdim=True) - 1)
        return Independent(Normal(mean, torch.full_like(mean, self.scale)), 1)


class Alike:
    """Independent Bernoulli dimensions that all have one log-odds, of shape ``(..., 1)``."""

    def __init__(self, logit: torch.Tensor) -> None:
        self.logit = logit.squeeze(-1)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        ones = x.sum(-1)
        return ones * logsigmoid(self.logit) + (x.shape[-1] - ones) * logsigmoid(-self.logit)


class HardDecoder(nn.Module):
    """Each dimension is codeword 1's above z1 = 0, but for an error."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.logit = math.log1p(-error) - math.log(error)

    def p_x(self, z1: torch.Tensor) -> Alike:
        return Alike(torch.where(z1 < 0, -self.logit, self.logit).to(z1.dtype))


class LinearDecoder(nn.Module):
    """Logits slope times z1."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def p_x(self, z1: torch.Tensor) -> Alike:
        return Alike(self.slope * z1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs by the default recipe, ``trained(layers, ndims, prob)``; once, whichever process needs them."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "trained"

    @cache
    def get(layers: int, ndims: int, prob: float = 0.5) -> Run:
        config = Config(ndims=ndims, layers=layers, prob=prob)
        path = shared / run_name(config)
        if not (path / "metrics.json").exists():  # which is written last
            save_run(fit(*build(config), config), path)
        return load_run(path)

    return get


@pytest.fixture(scope="session")
def solved(trained: Callable[..., Run]) -> Callable[..., tuple[exact.Truth, exact.Joint]]:
    """The tables of `trained`'s runs."""

    @cache
    def get(layers: int, ndims: int, prob: float = 0.5) -> tuple[exact.Truth, exact.Joint]:
        run = trained(layers, ndims, prob)
        truth = exact.solve(run.model, run.guide, run.data)
        return truth, exact.solve_joint(run.model, run.guide, run.data, truth)

    return get
