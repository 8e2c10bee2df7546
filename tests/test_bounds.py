"""Sampled bounds against their exact expectations, Pyro's, and each other."""

import itertools
import math
import resource
from collections.abc import Callable
from dataclasses import replace

import arviz as az
import numpy as np
import pytest
import torch
from conftest import CHANCE, FixedGuide, HardDecoder, Ladder, deviation, excess, linear_model, under
from pyro.infer import MCMC, NUTS

from pyro_onebit import RECIPES, Config, InputError, OneBitData, Run, build, exact, register_recipe
from pyro_onebit.bounds import bound_table, eubo, importance_bound, log_weights, pyro_bound
from pyro_onebit.exact import draw_posterior, gaussian_optimum
from pyro_onebit.programs import Pair

CELLS = [(1, 5), (1, 1000), (2, 5), (2, 1000)]


def programs(run: Run) -> tuple:
    return run.model, run.guide, run.data


def bounds_of(log_w: torch.Tensor, particles: int, alpha: float = 0.0) -> torch.Tensor:
    """By hand, of draws ``(draws, ...)`` of log w: bounds of `particles` each, ``(repeats, ...)``."""
    log_w = log_w[: len(log_w) // particles * particles].unflatten(0, (particles, -1))
    if alpha == 1.0:
        return log_w.mean(0)
    return (torch.logsumexp((1.0 - alpha) * log_w, 0) - math.log(particles)) / (1.0 - alpha)


def bound_error(law: exact.WeightLaw, expected: torch.Tensor, particles: int, repeats: int) -> torch.Tensor:
    """`deviation` of the mean of so many bounds from what is `expected`, for each codeword.

    By the exact law of the weight, and not by the repeats' spread: rare, large costs of a reconstruction that fails,
    and rare, large weights, may be missing in that, as in the repeats themselves.
    """
    if particles == 1:  # the mean of independent draws' log r
        return torch.tensor([deviation(law.log_ratio[c], repeats * particles, law.q[c]) for c in (0, 1)])
    errors = []
    for codeword in (0, 1):
        generator = torch.Generator().manual_seed(particles)
        cumulative = law.q[codeword].cumsum(0)
        level = cumulative[-1] * torch.rand(particles * 4000, generator=generator, dtype=torch.float64)
        sample = bounds_of(law.log_ratio[codeword][torch.searchsorted(cumulative, level)], particles)
        # A sample tells E exp(s L) where its square, E exp(2 s L), is finite: E exp(L) is, being at most the evidence.
        # That is a bound by itself as well: P(mean L > ln p + t) <= exp(-repeats t).
        by_markov = float(law.log_evidence[codeword] - expected[codeword]) + math.log(2.0 / CHANCE) / repeats
        above = min(excess(sample, repeats, largest_tilt=0.5), by_markov)
        errors.append(max(above, excess(-sample, repeats)))
    return torch.tensor(errors)


def test_worked_case() -> None:
    """FACTS' hard decoder: errors small against the gaps themselves."""
    model, guide, data = HardDecoder(1e-6), FixedGuide(0.972, 0.2351), OneBitData(1000)
    for k, gap in {10: 0.43785, 100: 0.21278, 1000: 0.08412}.items():
        value, error = importance_bound(model, guide, data, k, repeats=800_000 // max(100, k)).average
        assert abs(value - (-0.694147 - gap)) < 4 * error
        assert error < 0.1 * gap


@pytest.mark.parametrize(("layers", "ndims"), CELLS)
def test_sampled_and_exact_expectation_agree(
    trained: Callable[..., Run], solved: Callable, layers: int, ndims: int
) -> None:
    """And ELBO <= IWAE_10 <= IWAE_1000 <= log p <= EUBO.

    The weights that the bounds are made of are held against their law apart, cut off so that a sample's mean is worth
    something: the bounds themselves hang on weights so rare and large, or small, that a million draws may lack them.
    How near a bound comes to its expectation is seen in programs with light weights (`test_worked_case`).
    """
    run = trained(layers, ndims)
    truth, joint = solved(layers, ndims)
    law = joint.law
    particles = [1, 10, 1000]
    draws = min(100_000, 50_000_000 // ndims) if layers == 2 else min(500_000, 150_000_000 // ndims)
    log_w = log_weights(*programs(run), draws)
    log_r = log_w - law.log_evidence
    for codeword in (0, 1):
        for cut in (lambda log_r: log_r.clamp_min(-5.0), lambda log_r: log_r.exp().clamp_max(10.0)):
            atoms, mass = cut(law.log_ratio[codeword]), law.q[codeword]
            error = deviation(atoms, draws, mass)
            assert abs(float(cut(log_r[:, codeword]).mean() - mass @ atoms)) < error < 0.02
    ladder = []
    for k, expected in zip(particles, law.expected_bound(particles), strict=True):
        # `test_a_bound_is_that_of_its_weights`: so `importance_bound` has them, too.
        value, error = bounds_of(log_w, k).mean(0), bound_error(law, expected, k, draws // k)
        assert ((value - expected).abs() < error).all()
        ladder.append((expected, value, error))
    elbo = -sum(truth.terms.values())
    assert ((law.limit(1.0) - elbo).abs() < 1e-6).all()
    drawn = 20_000 if layers == 1 else 5000  # which takes long with two
    upper = eubo(*programs(run), truth, drawn)
    exact_upper = truth.log_evidence + joint.kl_reverse
    under_p = (law.q.log() + law.log_ratio).exp()  # where r overflows, q makes up for it
    error = torch.tensor([deviation(law.log_ratio[c], drawn, under_p[c]) for c in (0, 1)])
    assert ((upper.value - exact_upper).abs() < error).all()
    ladder += [(truth.log_evidence,) * 2 + (torch.zeros(2),), (exact_upper, upper.value, error)]
    for (low, sampled_low, low_error), (high, sampled_high, high_error) in itertools.pairwise(ladder):
        assert (low < high).all()
        assert (sampled_low - sampled_high < low_error + high_error).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("particles", "held"), [(1, 2**20), (20, 2**20), (1000, 2**20), (1000, 1000)])
def test_a_bound_is_that_of_its_weights(
    monkeypatch: pytest.MonkeyPatch, particles: int, held: int, alpha: float
) -> None:
    """Also where the draws of all repeats are too many to be held at once."""
    for name in ("_DRAWS", "_AT_ONCE"):
        monkeypatch.setattr(f"pyro_onebit.bounds.{name}", held)
    own = HardDecoder(1e-2), FixedGuide(0.6, 0.9), OneBitData(5)
    parts = [bounds_of(log_w, particles, alpha) for log_w in log_weights(*own, 3 * particles).split(held)]
    found = importance_bound(*own, particles, alpha=alpha, repeats=3)
    torch.testing.assert_close(found.value, torch.cat(parts).mean(0), rtol=0, atol=1e-9)


def test_bounds_of_several_bits(ladder: Ladder) -> None:
    """One particle's expected bound by a sum over it, two particles' by one over both; and what is drawn."""
    log_q, evidence = ladder.log_q, ladder.log_evidence
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    joint = exact.solve_joint(ladder.model, ladder.guide, ladder.data, truth)
    noise = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
    standard = torch.distributions.Normal(0.0, 1.0)
    mass = 0.05 * standard.log_prob(noise).exp()
    pairs, repeats = mass[:, None] * mass, 10_000
    rows = bound_table(ladder.model, ladder.guide, ladder.data, joint, [1, 2], repeats=repeats)
    one = under(log_q, ladder.log_posterior - log_q) + evidence
    for codeword, (loc, scale) in enumerate(zip(ladder.loc, ladder.scale, strict=True)):
        z = loc + scale * noise
        log_w = ladder.log_likelihood(z)[codeword] + standard.log_prob(z) - standard.log_prob(noise) + scale.log()
        bound = torch.logaddexp(log_w[:, None], log_w) - math.log(2.0)
        two, elbo = float((pairs * bound).sum()), float(mass @ log_w)
        assert elbo == pytest.approx(float(one[codeword]), abs=1e-9)
        for value, spread, k in (
            (elbo, (mass @ (log_w - elbo) ** 2).sqrt(), 0),
            (two, (pairs * (bound - two) ** 2).sum().sqrt(), 1),
        ):
            row = rows[k * (len(evidence) + 1) + codeword]
            assert (row["codeword"], row["expected"]) == (codeword, pytest.approx(value, abs=1e-6))
            assert row["gap"] == pytest.approx(float(evidence[codeword]) - value, abs=1e-6)
            assert row["estimate"] == pytest.approx(value, abs=5.5 * float(spread) / repeats**0.5)
    average = rows[len(evidence)]
    assert average["codeword"] is None
    assert average["expected"] == pytest.approx(float(ladder.data.probs @ one), abs=1e-6)


def test_the_upper_bound_of_several_bits(ladder: Ladder) -> None:
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    joint = exact.solve_joint(ladder.model, ladder.guide, ladder.data, truth)
    log_p, log_r = ladder.log_posterior, ladder.log_posterior - ladder.log_q
    upper = under(log_p, log_r) + ladder.log_evidence
    torch.testing.assert_close(truth.log_evidence + joint.kl_reverse, upper, rtol=0, atol=1e-6)
    spread = under(log_p, (log_r - under(log_p, log_r)[:, None]) ** 2).sqrt()
    sampled = eubo(ladder.model, ladder.guide, ladder.data, truth, 40_000)
    assert ((sampled.value - upper).abs() < 5.5 * spread / 200.0).all()


def test_the_upper_bound_of_two_layers() -> None:
    """Of a guide so far from the posterior that the bound is told from all that is near the evidence."""
    ladder = Ladder(2, layers=2)
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    joint = exact.solve_joint(ladder.model, ladder.guide, ladder.data, truth)
    sampled = eubo(ladder.model, ladder.guide, ladder.data, truth, 5000)
    assert ((sampled.value - truth.log_evidence - joint.kl_reverse).abs() < 5 * sampled.standard_error).all()
    assert (joint.kl_reverse > 20 * sampled.standard_error).all()


def test_the_mean_weight_is_the_evidence_where_its_variance_is_finite() -> None:
    model, guide, data = HardDecoder(1e-3), FixedGuide(0.6, 0.9), OneBitData(5)
    truth = exact.solve(model, guide, data)
    weight = log_weights(model, guide, data, 400_000).exp()
    error = weight.std(0) / 400_000**0.5
    assert ((weight.mean(0) - truth.log_evidence.exp()).abs() < 4 * error).all()
    assert (error < 2e-3 * truth.log_evidence.exp()).all()


@pytest.mark.parametrize(("layers", "alpha"), [(1, 0.0), (2, 0.0), (1, 1.0), (2, 0.5), (1, 0.5)])
def test_pyros_bound_agrees(layers: int, alpha: float) -> None:
    """From the plain start: weights are light there, and four hundred repeats tell their own error."""
    plain = RECIPES["reference"](layers)
    register_recipe("narrow")(lambda _: replace(plain, arch=replace(plain.arch, width_z=10)))
    model, guide, data = build(Config(ndims=5, layers=layers, preset="narrow"))
    truth = exact.solve(model, guide, data)
    [expected] = exact.solve_joint(model, guide, data, truth).law.expected_bound([20], alpha)
    value, error = pyro_bound(model, guide, data, 20, alpha=alpha, repeats=400)
    assert ((value - expected).abs() < 4.5 * error).all()
    own = importance_bound(model, guide, data, 20, alpha=alpha, repeats=10_000)
    assert ((own.value - expected).abs() < 4.5 * own.standard_error).all()


def test_single_repeats_error_is_that_of_many() -> None:
    """Where weights are light the delta method gives the spread of repeats."""
    model, guide, data = HardDecoder(1e-2), FixedGuide(0.6, 0.9), OneBitData(5)
    many = importance_bound(model, guide, data, 2000, repeats=400)
    single = importance_bound(model, guide, data, 2000)
    assert single.standard_error.tolist() == pytest.approx((many.standard_error * 20).tolist(), rel=0.2)
    assert torch.isnan(importance_bound(model, guide, data, 1).standard_error).all()


def test_same_seed_same_bound_and_nothing_else_changed(trained: Callable[..., Run]) -> None:
    run = trained(2, 5)
    state = torch.random.get_rng_state()
    first, second = (importance_bound(*programs(run), 50, repeats=3, seed=7) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(first.value, importance_bound(*programs(run), 50, repeats=3, seed=8).value)


def test_memory_does_not_grow_with_particles_times_dimensions(trained: Callable[..., Run]) -> None:
    """40,000 draws more, of 1000 dimensions, would be 640 MB of logits more at once."""
    run = trained(1, 1000)
    importance_bound(*programs(run), 20_000)  # more than go through the networks together: that much memory it takes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    importance_bound(*programs(run), 60_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_table(trained: Callable[..., Run], solved: Callable) -> None:
    run = trained(2, 5)
    truth, joint = solved(2, 5)
    rows = bound_table(*programs(run), joint, [1, 100], repeats=5)
    assert [(row["particles"], row["codeword"]) for row in rows] == [(k, c) for k in (1, 100) for c in (0, 1, None)]
    assert rows[0]["khat"] is None
    assert rows[0]["trusted"] is None
    assert isinstance(rows[3]["trusted"], bool)
    mean = float(truth.probs @ truth.log_evidence)
    assert rows[5]["expected"] + rows[5]["gap"] == pytest.approx(mean, abs=1e-9)
    assert math.isfinite(rows[5]["standard_error"])


@pytest.mark.parametrize(
    ("counts", "message"), [({"particles": 0}, "particles is 0"), ({"repeats": -1}, "repeats is -1")]
)
def test_counts_are_checked(trained: Callable[..., Run], counts: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        importance_bound(*programs(trained(1, 5)), **{"particles": 2, **counts})


@pytest.mark.parametrize("layers", [1, 2])
def test_posterior_draws_are_the_posterior(trained: Callable[..., Run], solved: Callable, layers: int) -> None:
    run = trained(layers, 5)
    truth, joint = solved(layers, 5)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = draw_posterior(Pair(run.model, run.guide, run.data), truth, 10_000)
    for name, latent in {"z1": joint.z1, f"z{layers}": truth}.items():
        cumulative = latent.grid.cumulative(latent.log_posterior.exp())
        for codeword in (0, 1):
            z = draws[name][:, codeword]
            level = torch.from_numpy(np.interp(z.numpy(), latent.z.numpy(), cumulative[codeword].numpy()))
            # By the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart the Kolmogorov-Smirnov distance from
            # uniform is above this with a chance of no more than CHANCE.
            gap = (level.sort().values - (torch.arange(len(z)) + 0.5) / len(z)).abs().max()
            assert float(gap) < (math.log(2.0 / CHANCE) / (2 * len(z))) ** 0.5


def test_nuts_quadrature_and_importance_sampling_agree() -> None:
    """Three ways to the posterior of a smooth decoder: its mean and standard deviation.

    The decoder is that of the best Gaussian guide at n = 5, and the guide so wide that the weights' variance is
    finite: a trained guide's may not be, and then the error of what is weighed by them is not known.
    """
    best = gaussian_optimum(5)
    model = linear_model(5, 2 * best.loc[1] / best.scale[1] ** 2).double()
    guide, data = FixedGuide(0.6, 0.9), OneBitData(5)
    truth = exact.solve(model, guide, data)
    mean = truth.under(truth.log_posterior, truth.z)
    sd = (truth.under(truth.log_posterior, truth.z**2) - mean**2).sqrt()

    torch.manual_seed(0)
    draws = 100_000
    with torch.no_grad():
        pair = Pair(model, guide, data)
        latents = pair.draw(pair.guide, draws)
        share = torch.softmax(pair.at(latents).log_weight, 0)
    z = latents["z1"]
    sampled_mean = (share * z).sum(0)
    sampled_sd = ((share * z**2).sum(0) - sampled_mean**2).sqrt()
    error = ((share**2) * (z - sampled_mean) ** 2).sum(0).sqrt()
    assert ((sampled_mean - mean).abs() < 4 * error).all()
    assert ((sampled_sd - sd).abs() < 4 * error).all()

    # In double precision, so that a chain's decisions do not hang on rounding.
    mcmc = MCMC(NUTS(model.requires_grad_(False)), num_samples=600, warmup_steps=150, disable_progbar=True)
    mcmc.run(pair.x[1:])
    chain = mcmc.get_samples()["z1"].flatten()
    assert chain.dtype == torch.float64
    effective = float(az.ess(chain[None].numpy()))
    chain_error = float(chain.std()) / effective**0.5
    assert abs(float(chain.mean() - mean[1])) < 4 * chain_error
    assert abs(float(chain.std() - sd[1])) < 4 * chain_error
