"""What several test modules share: toys with closed forms, runs trained once, and how far chance may carry a mean."""

import math
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import Independent
from torch.nn.functional import logsigmoid

from pyro_onebit import BitsData, Config, OneLayerGuide, Run, build, exact, fit, load_run, save_run
from pyro_onebit.data import words_of
from pyro_onebit.distributions import standard_normal
from pyro_onebit.registry import REGISTRIES
from pyro_onebit.studies import run_name

# Processes side by side, each with all the cores' threads, are many times slower. And how a sum is split among
# threads changes its last digit: of a run that is judged within `fit`, with one thread, and again in a test.
torch.set_num_threads(1)

#: What trained runs' seeds begin with. No test may hang on what a training happens to give: neither on its last
#: digits, which are the processor's, nor on its seed. So the tests must pass with any: `ONEBIT_TEST_SEED=1 pytest`.
SEED = int(os.environ.get("ONEBIT_TEST_SEED", "0"))

#: A test of draws fails by chance at most this often, for each of its assertions.
CHANCE = 1e-6


def excess(
    values: torch.Tensor, count: int, masses: torch.Tensor | None = None, largest_tilt: float = math.inf
) -> float:
    """How far the mean of `count` independent draws may be above its expectation, but for a chance of `CHANCE` / 2.

    By Chernoff's inequality P(mean - mu > t) <= exp(-count (s t - K(s))) for every s > 0, where K is the logarithm of
    E exp(s (v - mu)). So t is the least of (K(s) + ln(2 / CHANCE) / count) / s over s. That holds for every law: a
    normal one's mean may be 5.4 standard errors off, and that of a law with rare, large values farther, as it will
    be, though a sample without them has a small standard error.

    Arguments:
        values: The law's atoms, shape ``(M,)``.
        count: Draws that are averaged.
        masses: The atoms' probabilities, if they are not the same.
        largest_tilt: The largest s that is tried.
    """
    values = values.double()
    masses = torch.full_like(values, 1.0 / len(values)) if masses is None else masses.double()
    values, log_mass = values[masses > 0], (masses[masses > 0] / masses.sum()).log()
    centred = values - log_mass.exp() @ values
    sd = float((log_mass.exp() @ centred.square()).sqrt())
    if sd == 0.0:
        return 0.0
    budget = math.log(2.0 / CHANCE) / count
    tilts = (2.0 * budget) ** 0.5 / sd * torch.logspace(-4, 4, 161, dtype=values.dtype)
    return min(float((torch.logsumexp(log_mass + s * centred, 0) + budget) / s) for s in tilts.clamp_max(largest_tilt))


def deviation(values: torch.Tensor, count: int, masses: torch.Tensor | None = None) -> float:
    """How far the mean of `count` draws may be from its expectation, on either side, but for a chance of `CHANCE`."""
    return max(excess(values, count, masses), excess(-values, count, masses))


class FixedGuide(OneLayerGuide):
    """N(-loc, scale^2) for codeword 0 and N(loc, scale^2) for codeword 1."""

    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self._loc, self._scale = loc, scale

    def q_z1(self, x: torch.Tensor) -> Independent:
        mean = self._loc * (2 * x.mean(-1, keepdim=True) - 1)
        return dist.Normal(mean, torch.full_like(mean, self._scale)).to_event(1)


class Alike(dist.TorchDistribution):
    """Independent Bernoulli dimensions that all have one log-odds, of shape ``(...)``: as many as one likes."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, logit: torch.Tensor, ndims: int) -> None:
        self.logit = logit
        super().__init__(logit.shape, (ndims,))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "Alike":
        return Alike(self.logit.expand(batch_shape), self.event_shape[0])

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        ones = x.sum(-1)
        return ones * logsigmoid(self.logit) + (x.shape[-1] - ones) * logsigmoid(-self.logit)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return torch.bernoulli(self.logit.sigmoid()[..., None].expand(self._extended_shape(sample_shape)))


class Decoder(nn.Module):
    """z1 ~ N(0, 1), and each dimension's log-odds a function of it."""

    def logit(self, z1: torch.Tensor) -> torch.Tensor:
        """Of shape ``(...)``, z1 ``(..., 1)``."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", standard_normal(x))
            pyro.sample("x", Alike(self.logit(z1), x.shape[-1]), obs=x)


class HardDecoder(Decoder):
    """Each dimension is codeword 1's above z1 = 0, but for an error."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.height = math.log1p(-error) - math.log(error)

    def logit(self, z1: torch.Tensor) -> torch.Tensor:
        return torch.where(z1 < 0, -self.height, self.height).to(z1.dtype).squeeze(-1)


class LinearDecoder(Decoder):
    """Logits slope times z1."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def logit(self, z1: torch.Tensor) -> torch.Tensor:
        return (self.slope * z1).squeeze(-1)


def linear_model(ndims: int, slope: float) -> nn.Module:
    """`LinearDecoder` as a Pyro program: the package's own model of one layer, with its parameters set by hand."""
    model, _, _ = build(Config(ndims=ndims))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.p_x.slope.fill_(slope)
    return model


#: Even steps over the whole line: the sum over them of what vanishes smoothly at both ends has every digit.
Z = torch.linspace(-12.0, 12.0, 48_001, dtype=torch.float64)
STEP = float(Z[1] - Z[0])


class Ladder:
    """Codewords at places of their own under a decoder that is no best one: every figure is a sum over `Z`.

    With two layers z1 and z2 are normals under the model, p(z2|z1) = N(0.8 z1, 0.6²) and p(z1) = N(0, 1), and q(z2|z1)
    is N(0.7 z1 + 0.2, 0.5²).
    """

    SLOPE, SHIFT, SD = 0.7, 0.2, 0.5

    def __init__(self, bits: int, layers: int = 1) -> None:
        self.data, self.layers = BitsData(tuple(range(2, 2 + bits)), tuple(0.5 - 0.1 * j for j in range(bits))), layers
        count = 2**bits
        rank = torch.arange(count, dtype=torch.float64)
        self.loc = (2.0 * rank / (count - 1) - 1.0) * 1.4
        self.scale = 0.9 / count + 0.03 * rank / count
        self.words = torch.tensor(words_of(bits), dtype=torch.float64)
        self.slopes = torch.linspace(3.0, -2.0, bits, dtype=torch.float64)

    def number(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, None] == self.data.codewords).all(-1).long().argmax(-1)

    def odds(self, z: torch.Tensor) -> torch.Tensor:
        """Log-odds of each bit, ``(..., K)``, given z ``(..., 1)``."""
        return self.slopes * z + 0.3 * torch.sin(4.0 * z)

    def model(self, x: torch.Tensor) -> None:
        prior = dist.Normal(torch.zeros(len(x), 1, dtype=torch.float64), 1.0).to_event(1)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample(f"z{self.layers}", prior)
            if self.layers == 2:
                z = pyro.sample("z1", dist.Normal(0.8 * z, 0.6).to_event(1))
            logits = self.odds(z).repeat_interleave(torch.tensor(self.data.repeats), -1)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        at = self.number(x)
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(self.loc[at][:, None], self.scale[at][:, None]).to_event(1))
            if self.layers == 2:
                pyro.sample("z2", dist.Normal(self.SLOPE * z1 + self.SHIFT, self.SD).to_event(1))

    def log_likelihood(self, z: torch.Tensor) -> torch.Tensor:
        """log p(x|z1) of each codeword, ``(M, N)``, at z1 ``(N,)``."""
        odds, repeats = self.odds(z[:, None]), torch.tensor(self.data.repeats, dtype=torch.float64)
        return ((self.words[:, None] * odds - nn.functional.softplus(odds)) * repeats).sum(-1)

    @property
    def log_q(self) -> torch.Tensor:
        """log q(z1|x) at `Z`, ``(M, N)``."""
        return dist.Normal(self.loc[:, None], self.scale[:, None]).log_prob(Z)

    @property
    def log_evidence(self) -> torch.Tensor:
        """log p(x), ``(M,)``."""
        return (STEP * (self.log_likelihood(Z) + dist.Normal(0.0, 1.0).log_prob(Z)).exp().sum(-1)).log()

    @property
    def log_posterior(self) -> torch.Tensor:
        """log p(z1|x) at `Z`, ``(M, N)``."""
        return self.log_likelihood(Z) + dist.Normal(0.0, 1.0).log_prob(Z) - self.log_evidence[:, None]


def under(log_density: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """E f(z) under densities at `Z`, ``(M, N)`` to ``(M,)``."""
    return STEP * (log_density.exp() * f).sum(-1)


@pytest.fixture(scope="session", params=[2, 3], ids=["M=4", "M=8"])
def ladder(request: pytest.FixtureRequest) -> Ladder:
    return Ladder(request.param)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """What a test registers is gone after it."""
    kept = [(registry, dict(registry)) for registry in REGISTRIES.values()]
    yield
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs by the default recipe, ``trained(layers, ndims, prob, model)``; once, whichever process needs them."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "trained"

    @cache
    def get(layers: int, ndims: int, prob: float = 0.5, model: str | None = None) -> Run:
        config = Config(ndims=ndims, layers=layers, prob=prob, model=model, seed=SEED)
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
