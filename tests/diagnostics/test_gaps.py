import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import SEED, FixedGuide, Ladder, LinearDecoder, Z, under
from pyro.nn import PyroModule, PyroParam
from scipy.optimize import minimize
from scipy.stats import norm
from torch import nn
from torch.distributions import Independent, Normal, constraints
from torch.nn.functional import logsigmoid

from pyro_onebit import GUIDES, Codebook, Config, OneBitData, OneLayerGuide, build, exact, fit
from pyro_onebit.diagnostics import GapSplit, gap_split, ideal_gap
from pyro_onebit.diagnostics.members import Member
from pyro_onebit.programs import DataLike

Solved = tuple[exact.Truth, exact.Joint, GapSplit]
STANDARD = Normal(0.0, 1.0)
NOISE = torch.linspace(-9, 9, 4001, dtype=torch.float64)
WEIGHT = torch.from_numpy(norm.pdf(NOISE.numpy())) * (NOISE[1] - NOISE[0])
NELDER_MEAD = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}


class Given(OneLayerGuide):
    """A Gaussian for each of two codewords, of scales given."""

    def __init__(self, loc: tuple[float, float], scale: tuple[float, float]) -> None:
        super().__init__()
        self._loc = nn.Parameter(torch.tensor(loc))
        self._log_scale = nn.Parameter(torch.tensor(scale).log())

    def q_z1(self, x: torch.Tensor) -> Independent:
        ones = x.mean(-1, keepdim=True)
        parts = [part[0] + (part[1] - part[0]) * ones for part in (self._loc, self._log_scale)]
        return dist.Normal(parts[0], parts[1].exp()).to_event(1)


class Kept(PyroModule):
    """The same for all codewords, of parameters that Pyro's store keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = PyroParam(torch.tensor(0.1))
        self.scale = PyroParam(torch.tensor(0.5), constraints.positive)

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.Normal(self.loc, self.scale).expand([len(x), 1]).to_event(1))


def split_of(model: nn.Module, guide: Any, data: DataLike) -> Solved:
    truth = exact.solve(model, guide, data)
    joint = exact.solve_joint(model, guide, data, truth)
    return truth, joint, gap_split(model, guide, data, truth, joint)


def best_gaussians(
    log_joint: Callable[[torch.Tensor], torch.Tensor], log_evidence: torch.Tensor, starts: Sequence[Sequence[float]]
) -> torch.Tensor:
    """min KL(N(m, s²) ‖ p) for each codeword by a trapezoidal rule in the noise and a search without gradients.

    It starts from each codeword's own values of m; log p(x, z) at z ``(N,)`` has the shape ``(M, N)``.
    """

    def kl(v: list[float], codeword: int) -> float:
        log_q = -0.5 * NOISE.square() - v[1] - 0.5 * math.log(2 * math.pi)
        log_p = log_joint(v[0] + math.exp(v[1]) * NOISE)[codeword] - log_evidence[codeword]
        return float(WEIGHT @ (log_q - log_p))

    found = [
        min(minimize(kl, [m, -0.5], (codeword,), method="Nelder-Mead", options=NELDER_MEAD).fun for m in own)
        for codeword, own in enumerate(starts)
    ]
    return torch.tensor(found, dtype=torch.float64)


def best_of_linear(truth: exact.Truth) -> torch.Tensor:
    """`best_gaussians` of five dimensions under `LinearDecoder(3)`."""
    slopes = torch.tensor([[-3.0], [3.0]])
    return best_gaussians(
        lambda z: STANDARD.log_prob(z) + 5 * logsigmoid(slopes * z), truth.log_evidence, [(-1, 1)] * 2
    )


GAUSSIAN = LinearDecoder(3.0), Given((-0.6, 0.9), (0.5, 0.3)), OneBitData(5)


@pytest.fixture(scope="module")
def of_gaussian() -> Solved:
    return split_of(*GAUSSIAN)


def test_the_approximation_gap_of_a_gaussian(of_gaussian: Solved) -> None:
    truth, joint, split = of_gaussian
    torch.testing.assert_close(split.approximation, best_of_linear(truth), rtol=0, atol=1e-6)
    assert torch.equal(split.total, joint.kl_forward)
    # To rounding: the difference and the sum are rounded, each to half a unit in the last place.
    torch.testing.assert_close(split.amortisation + split.approximation, split.total, rtol=2.0**-51, atol=0)
    assert float(split.amortisation.min()) > 0.01
    assert 0.0 <= float(split.spread.max()) < 1e-6
    again = gap_split(*GAUSSIAN, truth, joint, quiet=False)
    assert torch.equal(again.approximation, split.approximation)
    assert torch.equal(again.spread, split.spread)


def test_parameters_that_the_store_keeps() -> None:
    guide, data = Kept(), OneBitData(5)
    guide(data.codewords)
    store = pyro.get_param_store()
    before = {name: value.detach().clone() for name, value in store.items()}
    assert before
    truth, _, split = split_of(LinearDecoder(3.0), guide, data)
    torch.testing.assert_close(split.approximation, best_of_linear(truth), rtol=0, atol=1e-6)
    assert store.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in store.items())
    store.clear()


class Three(nn.Module):
    """A latent without an event dimension, under a Laplace prior; dimensions that turn at places of their own."""

    places = (-1.0, 0.5, 1.0)

    def log_odds(self, z: torch.Tensor) -> torch.Tensor:
        return 2.5 * (z[..., None] - torch.tensor(self.places, dtype=z.dtype))

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("theta", dist.Laplace(x.new_tensor(0.3), x.new_tensor(1.2)))
            pyro.sample("x", dist.Bernoulli(logits=self.log_odds(z)).to_event(1), obs=x)


class Shared(nn.Module):
    """A Gaussian whose mean is linear in x, and its scale one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.log_scale = nn.Linear(3, 1), nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.net.weight.fill_(0.5)
            self.net.bias.fill_(-0.5)

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("theta", dist.Normal(self.net(x).squeeze(-1), self.log_scale.exp()))


THREE = Codebook([[0, 0, 0], [1, 0, 0], [1, 1, 1]], [0.5, 0.2, 0.3])


def test_three_codewords_and_another_prior() -> None:
    model, guide = Three(), Shared()
    truth, _, split = split_of(model, guide, THREE)
    signs = 2.0 * THREE.codewords.double()[:, None] - 1.0

    def log_joint(z: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Laplace(0.3, 1.2).log_prob(z) + logsigmoid(signs * model.log_odds(z)).sum(-1)

    best = best_gaussians(log_joint, truth.log_evidence, [(-1.5, 0.0, 1.5)] * 3)
    # The prior's kink costs the trapezoidal rule some digits.
    torch.testing.assert_close(split.approximation, best, rtol=0, atol=1e-5)
    assert split.spread.shape == split.amortisation.shape == (3,)
    assert float(split.amortisation.min()) > 1e-3
    assert ideal_gap(guide, THREE, truth) is None


class OfBits(nn.Module):
    """A Gaussian whose mean is linear in each bit of a `Ladder`'s codewords, and its scale one for all."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.firsts = [sum(ladder.data.repeats[:j]) for j in range(ladder.data.bits)]
        self.weight = nn.Parameter(torch.linspace(1.0, -0.6, ladder.data.bits))
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            mean = ((x[:, self.firsts] - 0.5) * self.weight).sum(-1, keepdim=True)
            pyro.sample("z1", dist.Normal(mean, self.log_scale.exp()).to_event(1))


def test_the_gap_split_of_several_bits(ladder: Ladder) -> None:
    guide = OfBits(ladder)
    truth, _, split = split_of(ladder.model, guide, ladder.data)
    means = (ladder.words - 0.5) @ guide.weight.detach().double()
    log_q = Normal(means[:, None], math.exp(-1.0)).log_prob(Z)
    total = under(log_q, log_q - ladder.log_posterior)
    best = best_gaussians(
        lambda z: ladder.log_likelihood(z) + STANDARD.log_prob(z), ladder.log_evidence, means[:, None].tolist()
    )
    torch.testing.assert_close(split.approximation, best, rtol=0, atol=1e-6)
    torch.testing.assert_close(split.amortisation, total - best, rtol=0, atol=1e-6)
    assert float(split.amortisation.min()) > 1e-3
    assert ideal_gap(guide, ladder.data, truth) is None


def test_another_prior_has_no_ideal_gap() -> None:
    guide, data = Shared(), OneBitData(3)
    truth = exact.solve(Three(), guide, data)
    assert ideal_gap(guide, data, truth) is None


class Chain(nn.Module):
    """z2 ~ N(0, 1), z1 ~ N(0.8 z2, 0.6²), and dimensions whose log-odds are 3 z1."""

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            z1 = pyro.sample("z1", dist.Normal(0.8 * z2, 0.6))
            logits = (3.0 * z1)[..., None].expand(*z1.shape, x.shape[-1])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Pairwise(nn.Module):
    """Two Gaussians, the second one's mean linear in the first one's value; shared by all codewords."""

    def __init__(self, order: tuple[str, str], slope: float | None) -> None:
        super().__init__()
        self.order = order
        self.loc, self.log_scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        self.slope = 0.0 if slope is None else nn.Parameter(torch.tensor(slope))

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            first = pyro.sample(self.order[0], dist.Normal(self.loc[0], self.log_scale[0].exp()))
            pyro.sample(self.order[1], dist.Normal(self.loc[1] + self.slope * first, self.log_scale[1].exp()))


class WithRow(nn.Module):
    """q(z1|x) q(z2|z1, x), which stands x beside z1 and so takes one value a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 1), nn.Linear(6, 1)
        self.log_scale = nn.Parameter(torch.zeros(2))
        with torch.no_grad():
            for p in [*self.first.parameters(), *self.second.parameters()]:
                p.fill_(0.1)

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(self.first(x).squeeze(-1), self.log_scale[0].exp()))
            mean = self.second(torch.cat([x, z1[:, None]], -1)).squeeze(-1)
            pyro.sample("z2", dist.Normal(mean, self.log_scale[1].exp()))


@pytest.mark.parametrize(
    "guide",
    [Pairwise(("z1", "z2"), 0.1), WithRow(), Pairwise(("z2", "z1"), 0.1), Pairwise(("z2", "z1"), None)],
    ids=["up", "up with x", "down", "mean field"],
)
def test_two_latents(guide: Any) -> None:
    """All but the last have all bivariate normals, whose gap is closed but for E log p(x|z1), an integral over z1."""
    data, independent = OneBitData(5), getattr(guide, "slope", None) == 0.0
    truth, _, split = split_of(Chain(), guide, data)

    def gap(v: list[float], codeword: int) -> float:
        mean, scale = (v[0], v[1]), (math.exp(v[2]), math.exp(v[3]))
        rho = 0.0 if independent else math.tanh(v[4])
        entropy = 1.0 + math.log(2 * math.pi) + v[2] + v[3] + 0.5 * math.log1p(-rho * rho)
        square2 = mean[1] ** 2 + scale[1] ** 2
        cross = mean[0] * mean[1] + rho * scale[0] * scale[1]
        residual = mean[0] ** 2 + scale[0] ** 2 - 1.6 * cross + 0.64 * square2
        log_prior = -math.log(2 * math.pi) - math.log(0.6) - 0.5 * square2 - 0.5 * residual / 0.36
        likelihood = 5 * logsigmoid((2.0 * codeword - 1.0) * 3.0 * (mean[0] + scale[0] * NOISE))
        return float(truth.log_evidence[codeword]) - entropy - log_prior - float(WEIGHT @ likelihood)

    for codeword in range(2):
        sign = 2.0 * codeword - 1.0
        start = [sign, sign, -0.5, -0.5, 0.5]
        for _ in range(3):
            found = minimize(gap, start, (codeword,), method="Nelder-Mead", options=NELDER_MEAD)
            start = found.x
        assert float(split.approximation[codeword]) == pytest.approx(found.fun, abs=2e-6)
    assert float(split.amortisation.min()) > 0.1
    assert float(split.spread.max()) < 1e-5
    assert ideal_gap(guide, data, truth) is None


class Switch(nn.Module):
    """z1's mean goes from -1 to 1 where z2 crosses 0."""

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            z1 = pyro.sample("z1", dist.Normal((20.0 * z2).tanh(), 0.4))
            logits = (3.0 * z1)[..., None].expand(*z1.shape, x.shape[-1])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def test_a_second_latent_that_is_sharp_in_the_model() -> None:
    """Two independent Gaussians, whose gap is closed but for integrals over one latent each."""
    truth, _, split = split_of(Switch(), Pairwise(("z1", "z2"), None), OneBitData(5))
    fine = torch.linspace(-8.0, 8.0, 20_001, dtype=torch.float64)
    weight = dist.Normal(0.0, 1.0).log_prob(fine).exp() * (fine[1] - fine[0])

    def gap(v: list[float], codeword: int) -> float:
        (mean1, mean2), (scale1, scale2) = v[:2], map(math.exp, v[2:])
        turned = (20.0 * (mean2 + scale2 * fine)).tanh()
        residual = mean1**2 + scale1**2 - 2.0 * mean1 * float(weight @ turned) + float(weight @ turned.square())
        log_prior = -math.log(2 * math.pi) - math.log(0.4) - 0.5 * (mean2**2 + scale2**2) - 0.5 * residual / 0.16
        likelihood = 5 * float(weight @ logsigmoid((2.0 * codeword - 1.0) * 3.0 * (mean1 + scale1 * fine)))
        entropy = 1.0 + math.log(2 * math.pi) + v[2] + v[3]
        return float(truth.log_evidence[codeword]) - entropy - log_prior - likelihood

    for codeword in range(2):
        sign = 2.0 * codeword - 1.0
        found = minimize(gap, [sign, sign, -1.0, -0.5], (codeword,), method="Nelder-Mead", options=NELDER_MEAD)
        assert float(split.approximation[codeword]) == pytest.approx(found.fun, abs=1e-4)
    assert float(split.spread.max()) < 1e-3


@pytest.mark.parametrize("name", ["gaussian", "mixture", "flow", "truncated", "two_layer", "oracle", "prior"])
def test_both_parts_are_gaps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each family, however short the searches."""
    monkeypatch.setattr("pyro_onebit.diagnostics.members._ITERATIONS", 5)
    monkeypatch.setattr("pyro_onebit.diagnostics.members._NATURAL", 1)
    steps = [Member.descend, Member.follow_nature][: 3 - GUIDES[name].layers]
    searches = {latents: [steps, [Member.shake, *steps]] for latents in (1, 2)}
    monkeypatch.setattr("pyro_onebit.diagnostics.gaps.SEARCHES", searches)
    config = Config(ndims=3, guide=name, layers=GUIDES[name].layers, prob=0.3, steps=60, seed=SEED)
    run = fit(*build(config), config)
    state = torch.get_rng_state()
    _, joint, split = split_of(run.model, run.guide, run.data)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(split.approximation.min()) >= -1e-8
    assert float(split.amortisation.min()) >= 0.0
    assert torch.allclose(split.amortisation + split.approximation, joint.kl_forward, rtol=0, atol=1e-12)
    learns = name not in ("oracle", "prior")
    # There is nothing to search where there is nothing to learn.
    assert bool(torch.isfinite(split.spread).all()) is learns
    assert torch.equal(split.approximation, split.total) is not learns
    if name == "oracle":
        assert float(split.total.abs().max()) < 1e-6


def test_the_natural_gradient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spline comes close to any posterior; but its coordinates are bad ones, in which gradients alone are slow."""
    monkeypatch.setattr("pyro_onebit.diagnostics.members._NATURAL", 5)
    monkeypatch.setattr("pyro_onebit.diagnostics.gaps.SEARCHES", {1: [[Member.follow_nature] * 3]})
    config = Config(ndims=3, guide="flow", steps=60, seed=SEED)
    run = fit(*build(config), config)
    _, _, split = split_of(run.model, run.guide, run.data)
    assert float((split.approximation / split.total).max()) < 0.2


def test_a_guide_that_is_no_known_function_of_noise(of_gaussian: Solved, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, joint, known = of_gaussian
    for module in ("gaps", "members"):
        monkeypatch.setattr(f"pyro_onebit.diagnostics.{module}.sample_from_noise", lambda *_: None)
    split = gap_split(*GAUSSIAN, truth, joint)
    torch.testing.assert_close(split.approximation, known.approximation, rtol=0, atol=1e-6)
    assert ideal_gap(*GAUSSIAN[1:], truth) is None
    _, joint, two = split_of(Chain(), Pairwise(("z1", "z2"), 0.1), OneBitData(5))
    assert torch.equal(two.approximation, joint.kl_forward)
    assert torch.isnan(two.spread).all()


def test_what_cannot_be_searched_or_judged_is_all_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("a density does not integrate to one")

    model, guide, data = GAUSSIAN
    monkeypatch.setattr("pyro_onebit.diagnostics.members.solve", fail)
    for case in (FixedGuide(0.7, 0.4), FixedGuide(0.7, 0.4).forward, guide):
        _, joint, split = split_of(model, case, data)
        assert torch.equal(split.approximation, joint.kl_forward)
        assert float(split.amortisation.abs().max()) == 0.0
        assert torch.isnan(split.spread).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("ndims", [5, 1000])
def test_the_gap_to_an_ideal_decoder(ndims: int, mirrored: bool) -> None:
    """For Gaussians and prob 1/2: n h(m) + KL with m the mass on the wrong side, a function of two numbers."""

    def mass(v: list[float]) -> float:
        return float(norm.cdf(-v[0] / math.exp(v[1])))

    def loss(v: list[float]) -> float:
        m = mass(v)
        scale = math.exp(v[1])
        entropy = -m * math.log(m) - (1 - m) * math.log1p(-m)
        return ndims * entropy + 0.5 * (v[0] ** 2 + scale**2 - 1) - v[1]

    best = minimize(loss, [1.0, -1.2], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    m = mass(best.x)
    log_evidence = math.log(0.5 * ((1 - m) ** ndims + m**ndims))
    sign = -1.0 if mirrored else 1.0
    model, guide, data = LinearDecoder(20.0 * sign), Given((-0.9 * sign, 0.9 * sign), (0.3, 0.3)), OneBitData(ndims)
    gap = ideal_gap(guide, data, exact.solve(model, guide, data))
    assert gap == pytest.approx(best.fun + log_evidence, abs=1e-5)
