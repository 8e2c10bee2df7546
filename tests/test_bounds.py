"""Sampled bounds against their exact expectations, Pyro's, and each other."""

import copy
import itertools
import math
import resource
from collections.abc import Callable

import arviz as az
import numpy as np
import pytest
import torch
from conftest import FixedGuide, HardDecoder
from pyro.infer import MCMC, NUTS

from pyro_onebit import InputError, OneBitData, Run, exact
from pyro_onebit.bounds import bound_table, eubo, importance_bound, log_weights, pyro_bound
from pyro_onebit.grids import double
from pyro_onebit.sampling import draw_posterior, draw_q, log_weight

CELLS = [(1, 5), (1, 1000), (2, 5), (2, 1000)]


def programs(run: Run) -> tuple:
    return run.model, run.guide, run.data


def test_worked_case() -> None:
    """FACTS' hard decoder: errors small against the gaps themselves."""
    model, guide, data = HardDecoder(1e-6), FixedGuide(0.972, 0.2351), OneBitData(1000)
    for k, gap in {10: 0.43785, 100: 0.21278, 1000: 0.08412}.items():
        value, error = importance_bound(model, guide, data, k, repeats=2_000_000 // k).average
        assert abs(value - (-0.694147 - gap)) < 4 * error
        assert error < 0.1 * gap


@pytest.mark.parametrize(("layers", "ndims"), CELLS)
def test_sampled_and_exact_expectation_agree(
    trained: Callable[..., Run], solved: Callable, layers: int, ndims: int
) -> None:
    """And ELBO <= IWAE_10 <= IWAE_1000 <= log p <= EUBO."""
    run = trained(layers, ndims)
    truth, joint = solved(layers, ndims)
    particles = [1, 10, 1000]
    ladder = []
    draws = min(200_000, 100_000_000 // ndims) if layers == 2 else min(1_000_000, 200_000_000 // ndims)
    for k, expected in zip(particles, joint.law.expected_bound(particles), strict=True):
        estimate = importance_bound(*programs(run), k, repeats=draws // k, seed=k)
        # A single draw's rare, large cost may be missing from the sample and from its spread, so K = 1 is
        # held against the exact standard error.
        log_r = torch.where(joint.law.q > 0, joint.law.log_ratio, 0.0)
        variance = (joint.law.q * (log_r - (joint.law.q * log_r).sum(-1, keepdim=True)) ** 2).sum(-1)
        error = (variance / draws).sqrt() if k == 1 else estimate.standard_error
        assert ((estimate.value - expected).abs() < 4.5 * error).all()
        # Small enough to see the gap at four standard errors, or a few thousandths of the bit.
        assert (estimate.standard_error < (0.25 * (truth.log_evidence - expected)).clamp_min(2e-3)).all()
        ladder.append((estimate.value, estimate.standard_error))
    elbo = -sum(truth.terms.values())
    assert ((joint.law.limit(1.0) - elbo).abs() < 1e-6).all()
    upper = eubo(*programs(run), truth, 20_000)
    assert ((upper.value - truth.log_evidence - joint.kl_reverse).abs() < 4.5 * upper.standard_error).all()
    ladder += [(truth.log_evidence, torch.zeros(2)), (upper.value, upper.standard_error)]
    for (low, low_error), (high, high_error) in itertools.pairwise(ladder):
        assert (low - high < 4 * (low_error**2 + high_error**2).sqrt()).all()


def test_the_mean_weight_is_the_evidence_where_its_variance_is_finite() -> None:
    model, guide, data = HardDecoder(1e-3), FixedGuide(0.6, 0.9), OneBitData(5)
    truth = exact.solve(model, guide, data)
    weight = log_weights(model, guide, data, 400_000).exp()
    error = weight.std(0) / 400_000**0.5
    assert ((weight.mean(0) - truth.log_evidence.exp()).abs() < 4 * error).all()
    assert (error < 2e-3 * truth.log_evidence.exp()).all()


@pytest.mark.parametrize(("layers", "alpha"), [(1, 0.0), (2, 0.0), (1, 1.0), (2, 0.5), (1, 0.5)])
def test_pyros_bound_agrees(trained: Callable[..., Run], solved: Callable, layers: int, alpha: float) -> None:
    run = trained(layers, 5)
    _, joint = solved(layers, 5)
    value, error = pyro_bound(*programs(run), 20, alpha=alpha, repeats=200)
    [expected] = joint.law.expected_bound([20], alpha)
    assert ((value - expected).abs() < 4.5 * error).all()
    own = importance_bound(*programs(run), 20, alpha=alpha, repeats=20_000)
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
    """20,000 draws of 1000 dimensions would be 320 MB of logits at once."""
    run = trained(1, 1000)
    importance_bound(*programs(run), 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    importance_bound(*programs(run), 20_000)
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
        draws = draw_posterior(double(run.model), run.data.codewords.double(), truth, 20_000)
    for name, latent in {"z1": joint.z1, f"z{layers}": truth}.items():
        cumulative = latent.grid.cumulative(latent.log_posterior.exp())
        for codeword in (0, 1):
            z = draws[name][:, codeword, 0]
            level = torch.from_numpy(np.interp(z.numpy(), latent.z.numpy(), cumulative[codeword].numpy()))
            # The Kolmogorov-Smirnov distance from uniform of 20,000 draws is above this once in 10,000 times.
            gap = (level.sort().values - (torch.arange(len(z)) + 0.5) / len(z)).abs().max()
            assert float(gap) < 2.23 / len(z) ** 0.5


def test_nuts_quadrature_and_importance_sampling_agree(trained: Callable[..., Run], solved: Callable) -> None:
    """Three ways to the posterior of a smooth decoder: its mean and standard deviation."""
    run = trained(1, 5)
    truth, _ = solved(1, 5)
    mean = truth.under(truth.log_posterior, truth.z)
    sd = (truth.under(truth.log_posterior, truth.z**2) - mean**2).sqrt()

    torch.manual_seed(0)
    draws = 100_000
    with torch.no_grad():
        model, guide, x = double(run.model), double(run.guide), run.data.codewords.double()
        latents = draw_q(guide, x, draws)
        share = torch.softmax(log_weight(model, guide, x, latents), 0)
    z = latents["z1"].squeeze(-1)
    sampled_mean = (share * z).sum(0)
    sampled_sd = ((share * z**2).sum(0) - sampled_mean**2).sqrt()
    error = ((share**2) * (z - sampled_mean) ** 2).sum(0).sqrt()
    assert ((sampled_mean - mean).abs() < 4 * error).all()
    assert ((sampled_sd - sd).abs() < 4 * error).all()

    model = copy.deepcopy(run.model).requires_grad_(False)
    mcmc = MCMC(NUTS(model), num_samples=600, warmup_steps=150, disable_progbar=True)
    mcmc.run(run.data.codewords[1:])
    chain = mcmc.get_samples()["z1"].flatten().double()
    effective = float(az.ess(chain[None].numpy()))
    chain_error = float(chain.std()) / effective**0.5
    assert abs(float(chain.mean() - mean[1])) < 4 * chain_error
    assert abs(float(chain.std() - sd[1])) < 4 * chain_error
