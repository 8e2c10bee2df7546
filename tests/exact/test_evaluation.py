"""Quadrature against closed forms, worked cases, Monte Carlo and itself."""

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from conftest import SEED, FixedGuide, HardDecoder, LinearDecoder, deviation
from pyro.distributions import Bernoulli, Independent, Laplace, LogNormal, Normal, StudentT
from scipy import integrate, optimize, stats

from pyro_onebit import GUIDES, Config, GaussianGuide, OneBitData, Run, build, exact, fit
from pyro_onebit.exact import gaussian_optimum
from pyro_onebit.guides import top_down_optimum
from pyro_onebit.models import LearnedPriorModel
from pyro_onebit.nn import TWO_LAYER as ARCHITECTURE
from pyro_onebit.programs import Pair, Program

FACTS_OPTIMUM = {1: 0.69315, 5: 1.06579, 10: 1.15371, 100: 1.35960, 1000: 1.50049}
CASES = [(1, 1, 0.5), (1, 1000, 0.3), (2, 5, 0.5), (2, 1000, 0.2)]


@cache
def trained(layers: int, ndims: int, prob: float) -> Run:
    config = Config(ndims=ndims, layers=layers, prob=prob, steps=150, seed=SEED)
    return fit(*build(config), config)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def run(request: pytest.FixtureRequest) -> Run:
    return trained(*request.param)


def test_worked_case_of_a_hard_decoder() -> None:
    figures = exact.evaluate(HardDecoder(1e-6), FixedGuide(0.972, 0.2351), OneBitData(1000))
    assert figures["log_evidence"] == pytest.approx(-0.694147, abs=1e-6)
    assert -figures["loss"] == pytest.approx(-1.694596, abs=1e-6)
    assert figures["kl_posterior"] == pytest.approx(1.000449, abs=1e-6)


@pytest.mark.parametrize("ndims", FACTS_OPTIMUM)
def test_smooth_optimum_is_attained_by_its_linear_decoder(ndims: int) -> None:
    best = gaussian_optimum(ndims)
    loc, scale = best.loc[1], best.scale[1]
    figures = exact.evaluate(LinearDecoder(2 * loc / scale**2), FixedGuide(loc, scale), OneBitData(ndims))
    assert figures["loss"] == pytest.approx(FACTS_OPTIMUM[ndims], abs=1e-5)
    assert figures["loss"] == pytest.approx(best.loss, abs=1e-8)
    assert figures["optimum"] is None  # a guide that does not say its own
    assert figures["kl1"] == pytest.approx(0.5 * (loc**2 + scale**2 - 1) - math.log(scale), abs=1e-9)


@pytest.mark.parametrize("ndims", [1, 2, 5, 1000, 20_000])
def test_evidence_against_scipy_quad(ndims: int) -> None:
    slope = 30.0
    truth = exact.solve(LinearDecoder(slope), FixedGuide(1.0, 0.2), OneBitData(ndims))

    def joint(z: float) -> float:
        return float(np.exp(-ndims * np.logaddexp(0, -slope * z)) * stats.norm.pdf(z))

    evidence = integrate.quad(joint, -2, 12, points=[0, 0.1, 0.2, 0.5, 1.0], epsabs=1e-13, epsrel=1e-12, limit=500)[0]
    assert float(truth.log_evidence[1]) == pytest.approx(math.log(evidence), abs=1e-7)


@pytest.mark.parametrize("scale", [0.3, 1e-2, 1e-4])
def test_narrow_guides_are_resolved(scale: float) -> None:
    guide, data = FixedGuide(2.0, scale), OneBitData(5)
    figures = exact.evaluate(LinearDecoder(10.0), guide, data)
    assert figures["kl1"] == pytest.approx(0.5 * (4 + scale**2 - 1) - math.log(scale), abs=1e-6)
    assert figures["mutual_information"] == pytest.approx(math.log(2), abs=1e-6)
    assert max(figures.errors.values()) < 1e-6


class TestTrainedRuns:
    def test_identities(self, run: Run) -> None:
        m, truth = run.metrics, run.truth
        assert max(truth.errors.values()) < 1e-6
        assert m["loss"] == pytest.approx(m["recon"] + m["kl1"] + m["kl2"], abs=1e-12)
        assert m["recon_per_dim"] == pytest.approx(m["recon"] / run.data.ndims)
        gap = m["loss"] + m["log_evidence"]
        kl = float(truth.probs @ truth.under_q(truth.log_q - truth.log_prior))
        assert m["mutual_information"] + m["kl_aggregate"] == pytest.approx(kl, abs=1e-9)
        if run.config.layers == 1:
            assert gap == pytest.approx(m["kl_posterior"], abs=1e-6)
            assert kl == pytest.approx(m["kl1"], abs=1e-9)
        else:
            assert gap >= m["kl_posterior"] - 1e-7
        assert m["kl_posterior"] >= -1e-8
        assert m["entropy"] + 1e-7 >= m["mutual_information"] >= -1e-8
        assert -m["log_evidence"] >= m["entropy"] - 1e-7
        assert m["loss"] >= m["optimum"] - 1e-7

    def test_densities_are_normalised(self, run: Run) -> None:
        truth = run.truth
        for log_density in (truth.log_q, truth.log_posterior, truth.log_aggregate, truth.log_prior):
            total = log_density.exp() @ truth.weights
            assert torch.allclose(total, torch.ones_like(total), atol=1e-7, rtol=0)

    @torch.no_grad()
    def test_monte_carlo_agrees_within_its_error(self, run: Run) -> None:
        """By importance sampling: under q itself the reconstruction is a rare, large event."""
        torch.manual_seed(1)
        draws = max(5000, min(200_000, 20_000_000 // run.data.ndims))
        x = run.data.codewords
        q_z1 = run.guide.q_z1(x)
        z1 = q_z1.mean + 1.8 * q_z1.stddev * torch.randn(draws, 2, 1)
        weight = (q_z1.log_prob(z1) - Independent(Normal(q_z1.mean, 1.8 * q_z1.stddev), 1).log_prob(z1)).exp()
        prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
        terms = {"recon": -run.model.p_x(z1).log_prob(x)}
        if run.config.layers == 1:
            terms["kl1"] = q_z1.log_prob(z1) - prior.log_prob(z1)
        else:
            q_z2 = run.guide.q_z2(z1)
            z2 = q_z2.sample()
            terms["kl1"] = q_z1.log_prob(z1) - run.model.p_z1(z2).log_prob(z1)
            terms["kl2"] = q_z2.log_prob(z2) - prior.log_prob(z2)
        for name, values in terms.items():
            weighted = (weight * values).double()
            mean = float(run.data.probs.double() @ weighted.mean(0))
            # Of both codewords' draws together, each with its probability.
            error = deviation(weighted @ run.data.probs.double(), draws)
            assert abs(mean - run.metrics[name]) < error + 1e-7, name


@torch.no_grad()
def test_two_layer_top_posterior_against_a_direct_integral() -> None:
    """q(z2|x) on the grid equals the one-dimensional integral over z1."""
    run = trained(2, 5, 0.5)
    guide, x, truth = copy.deepcopy(run.guide).double(), run.data.codewords.double(), run.truth
    q_z1, e = guide.q_z1(x), torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    q_z2 = guide.q_z2(q_z1.mean[1] + q_z1.stddev[1] * e[:, None])
    mass, some = Normal(0.0, 1.0).log_prob(e).exp(), slice(None, None, 40)
    direct = torch.trapezoid(q_z2.log_prob(truth.z[some, None, None]).exp() * mass, e)
    # Where a training has made q(z2|x) jump, a node may be off; but such nodes stand for next to nothing.
    assert float((truth.log_q[1, some].exp() - direct).abs() @ truth.weights[some]) < 1e-8


@pytest.mark.parametrize(("ndims", "prob"), [(2, 0.5), (5, 0.95), (100, 0.1), (100_000, 0.5)])
def test_optimum_by_a_second_method(ndims: int, prob: float) -> None:
    """All four numbers free, the trapezoidal rule, gradient-based search."""
    z = np.linspace(-16, 16, 20_001)
    p = np.array([1 - prob, prob])

    def loss(v: np.ndarray) -> float:
        loc, scale = v[:2], np.exp(v[2:])
        joint = [np.log(p[c]) + stats.norm.logpdf(z, loc[c], scale[c]) for c in (0, 1)]
        surprise = sum(np.exp(joint[c]) * np.logaddexp(0, joint[1 - c] - joint[c]) for c in (0, 1))
        conditional_entropy = float(np.trapezoid(surprise, z))
        return ndims * conditional_entropy + float(p @ (0.5 * (loc**2 + scale**2 - 1) - np.log(scale)))

    starts = [np.array([-prob * s, (1 - prob) * s, -1.2, -1.2]) for s in (2.0, 4.0)]
    second = min(optimize.minimize(loss, s, method="BFGS").fun for s in starts)
    assert exact.optimum(ndims, prob) == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("prob", [0.05, 0.5, 0.8])
def test_one_dimension_needs_no_latent(prob: float) -> None:
    best = gaussian_optimum(1, prob)
    assert best.loss == OneBitData(1, prob).entropy
    assert best.loc == (0.0, 0.0)
    assert gaussian_optimum(2, prob).loss < 2 * OneBitData(2, prob).entropy


@pytest.mark.parametrize(("ndims", "prob"), [(2, 1e-11), (2, 1e-6), (1000, 1e-9)])
def test_a_rare_codeword_is_worth_a_latent(ndims: int, prob: float) -> None:
    """However small all losses are. The loss of the q that is found, by scipy's adaptive quadrature in units of q."""
    best, entropy = gaussian_optimum(ndims, prob), OneBitData(ndims, prob).entropy
    assert best.loss < 0.8 * ndims * entropy
    (low, high), (wide, narrow) = best.loc, best.scale
    if wide < narrow:
        low, high, wide, narrow, prob = high, low, narrow, wide, 1 - prob

    def gap(z: float) -> float:
        return math.log(prob / (1 - prob)) + stats.norm.logpdf(z, high, narrow) - stats.norm.logpdf(z, low, wide)

    # Either codeword's surprise under its own conditional; the common one's is where the rare one's density is.
    own = integrate.quad(lambda e: stats.norm.pdf(e) * np.logaddexp(0, -gap(high + narrow * e)), -9, 9, epsabs=1e-13)[0]
    other = integrate.quad(
        lambda e: narrow * stats.norm.pdf(high + narrow * e, low, wide) * np.logaddexp(0, gap(high + narrow * e)), -9, 9
    )[0]
    kl = [0.5 * (m**2 + s**2 - 1) - math.log(s) for m, s in ((low, wide), (high, narrow))]
    loss = ndims * (prob * own + (1 - prob) * other) + (1 - prob) * kl[0] + prob * kl[1]
    assert best.loss == pytest.approx(loss, rel=1e-4)


def test_optimum_is_symmetric_in_the_codewords() -> None:
    assert exact.optimum(7, 0.2) == pytest.approx(exact.optimum(7, 0.8), abs=1e-9)


def test_a_narrow_top_conditional_whose_tails_underflow() -> None:
    model, guide, data = build(Config(ndims=5, layers=2, preset="reference"))
    with torch.no_grad():
        guide.q_z2.net.layers[-1].bias[1] = -3.0
    guide.q_z1.places.copy_(torch.tensor([-1.0, 1.0]))
    figures = exact.evaluate(model, guide, data)
    assert all(math.isfinite(value) for value in figures.values())


def test_parameters_that_are_not_finite_are_refused() -> None:
    model, guide, data = build(Config(ndims=2))
    next(model.parameters()).data.fill_(math.nan)
    with pytest.raises(ArithmeticError, match="not finite"):
        exact.evaluate(model, guide, data)


def test_evaluating_changes_nothing() -> None:
    """Else a training would depend on what is asked about its programs before."""
    model, guide, data = build(Config(ndims=2))
    before, parameters = torch.random.get_rng_state(), [p.clone() for p in model.parameters()]
    Program("guide", guide, data.codewords.double())
    exact.evaluate(model, guide, data)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(parameters, model.parameters(), strict=True))


N = 3


def chain(top: Any, lower: Any, x_given: Any) -> Any:
    """A model of one latent, or of two where `lower` says what z1 is given z2."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", x.shape[-2], dim=-1):
            z = pyro.sample("z2" if lower else "z1", top.expand([1]).to_event(1))
            z1 = pyro.sample("z1", lower(z).to_event(1)) if lower else z
            pyro.sample("x", Bernoulli(logits=x_given(z1, z, x)).to_event(1), obs=x)

    return model


def of_z1(z1: torch.Tensor, z2: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 4.0 * z1.expand(*z1.shape[:-1], N)


def of_z1_and_z2(z1: torch.Tensor, z2: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return of_z1(z1 + z2, z2, x)


def of_the_dimensions_before(z1: torch.Tensor, z2: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A decoder that needs no latent for what it can copy."""
    before = torch.cat([torch.zeros_like(x[..., :1]), 200.0 * x[..., :-1] - 100.0], -1)
    return before + 0.0 * z1


STANDARD = Normal(0.0, 1.0)
LIMITS = [
    ("gaussian", STANDARD, None, of_z1, exact.optimum(N)),
    ("gaussian", Laplace(0.0, 1.0), None, of_z1, None),
    ("gaussian", Normal(0.0, 2.0), None, of_z1, None),
    ("gaussian", STANDARD, None, of_the_dimensions_before, None),
    ("truncated", Laplace(0.0, 1.0), None, of_z1, None),
    ("top_down", STANDARD, lambda z: Normal(z, 0.5), of_z1, top_down_optimum(N, 0.5)),
    ("top_down", Laplace(0.0, 1.0), lambda z: Normal(z, 0.5), of_z1, None),
    ("top_down", STANDARD, lambda z: StudentT(5.0, z, 0.5), of_z1, None),
    ("top_down", STANDARD, lambda z: Normal(z, 0.5), of_z1_and_z2, None),
]


@pytest.mark.parametrize(("guide", "top", "lower", "x_given", "limit"), LIMITS)
def test_a_limit_is_known_of_the_usual_models_alone(
    guide: str, top: Any, lower: Any, x_given: Any, limit: float | None
) -> None:
    figures = exact.evaluate(chain(top, lower, x_given), GUIDES[guide](N, 0.5, ARCHITECTURE), OneBitData(N))
    assert figures["optimum"] == limit
    if x_given is of_the_dimensions_before:  # which comes, with a guide that is the prior, below the others' limit
        assert figures["recon"] == pytest.approx(math.log(2))
        assert figures["recon"] < exact.optimum(N)


def test_a_product_of_bernoullis_is_one_wherever_its_latent_may_lie() -> None:
    """Of a positive latent, whose logarithm the decoder takes."""
    model = chain(LogNormal(0.0, 1.0), None, lambda z1, z2, x: of_z1(z1.log(), z2, x))

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", x.shape[-2], dim=-1):
            pyro.sample("z1", LogNormal(2.0 * x[..., :1] - 1.0, 0.5).to_event(1))

    assert Pair(model, guide, OneBitData(N)).x_is_product


def test_a_model_may_say_what_limits_become_under_its_own_prior() -> None:
    figures = exact.evaluate(LearnedPriorModel(N), GaussianGuide(N), OneBitData(N))
    assert figures["optimum"] == figures["entropy"]
