"""Distances between densities against closed forms and scipy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import FixedGuide, HardDecoder, LinearDecoder
from scipy import integrate, stats

from pyro_onebit import OneBitData, Run, exact
from pyro_onebit.exact import Marginal
from pyro_onebit.quadrature import Grid

STANDARD_NORMAL = torch.distributions.Normal(0.0, 1.0)


def gaussians(loc: float, scale: float, prob: float = 0.5) -> Marginal:
    """q(z|x) = N(-loc, scale^2) and N(loc, scale^2) under a decoder that says nothing."""
    grid = Grid(torch.linspace(-12, 12, 193, dtype=torch.float64))
    means = torch.tensor([[-loc], [loc]], dtype=torch.float64)
    log_q = torch.distributions.Normal(means, scale).log_prob(grid.nodes)
    flat = torch.full_like(log_q, -1.0)
    return Marginal(grid, STANDARD_NORMAL.log_prob(grid.nodes), flat, log_q, torch.tensor([1 - prob, prob]).double())


@pytest.mark.parametrize(("loc", "scale"), [(0.7, 1.0), (0.9, 0.4), (0.0, 0.5), (-1.0, 0.3)])
def test_gaussian_against_gaussian(loc: float, scale: float) -> None:
    latent = gaussians(loc, scale)
    figures = latent.distances(latent.log_posterior)
    z = np.linspace(-12, 12, 400_001)
    for codeword, mean in enumerate((-loc, loc)):
        gap = np.abs(stats.norm.cdf(z, mean, scale) - stats.norm.cdf(z))
        expected = {
            "kl_forward": 0.5 * (mean**2 + scale**2 - 1) - math.log(scale),
            "kl_reverse": 0.5 * ((1 + mean**2) / scale**2 - 1) + math.log(scale),
            "wasserstein": np.trapezoid(gap, z),
            "ks": gap.max(),
        }
        for name, value in expected.items():
            # The largest distance is sought among the nodes.
            tolerance = 1e-4 if name == "ks" else 1e-5
            assert float(figures[name][codeword]) == pytest.approx(value, abs=tolerance), name


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    latent = gaussians(0.7, 1.0)
    assert latent.distances(latent.log_posterior)["wasserstein"].tolist() == pytest.approx([0.7, 0.7], abs=1e-8)


@pytest.mark.parametrize("prob", [0.5, 0.2, 0.95])
@pytest.mark.parametrize("loc", [0.9, -0.9])
def test_truncated_normal_on_the_side_that_q_has(prob: float, loc: float) -> None:
    guide, data = FixedGuide(loc, 0.4), OneBitData(5, prob)
    truth = exact.solve(LinearDecoder(math.copysign(8.0, loc)), guide, data)
    cut = float(truth.thresholds)
    assert abs(cut) == pytest.approx(abs(stats.norm.ppf(prob)), abs=1e-12)
    assert truth.crossing == pytest.approx(0.0, abs=1e-9)
    assert (truth.log_truncated.exp() @ truth.weights).tolist() == pytest.approx([1.0, 1.0], abs=1e-9)
    # Codeword 1 has `prob` of the prior's mass.
    own = truth.z > cut if loc > 0 else truth.z < cut
    assert float((truth.log_prior.exp() * own) @ truth.weights) == pytest.approx(prob, abs=1e-9)
    wrong = [stats.norm.sf(cut, -loc, 0.4), stats.norm.cdf(cut, loc, 0.4)]
    wrong = wrong if loc > 0 else [1 - w for w in wrong]
    assert truth.wrong_side(truth.log_q).tolist() == pytest.approx(wrong, abs=1e-9)
    figures = truth.distances(truth.log_truncated)
    assert torch.isinf(figures["kl_forward"]).all()

    def integrand(z: float) -> float:
        log_p = stats.norm.logpdf(z) - math.log(prob)
        return math.exp(log_p) * (log_p - stats.norm.logpdf(z, loc, 0.4))

    ends = (cut, 12.0) if loc > 0 else (-12.0, cut)
    reverse = integrate.quad(integrand, *ends, epsabs=1e-11, limit=200)[0]
    assert float(figures["kl_reverse"][1]) == pytest.approx(reverse, rel=1e-7)


def test_an_exact_guide_is_at_no_distance() -> None:
    truth = exact.solve(HardDecoder(1e-9), FixedGuide(0.8, 0.6), OneBitData(50))
    ideal = Marginal(truth.grid, truth.log_prior, truth.log_likelihood, truth.log_truncated, truth.probs)
    to_itself = ideal.distances(truth.log_truncated)
    assert all(float(value.abs().max()) < 1e-9 for value in to_itself.values())
    # The decoder's error leaves the wrong side e^-1000 of the mass.
    assert float(ideal.distances(truth.log_posterior)["kl_forward"].abs().max()) < 1e-6


def test_where_the_likelihoods_never_cross_there_is_no_threshold() -> None:
    truth = exact.solve(LinearDecoder(0.0), FixedGuide(0.8, 0.6), OneBitData(5))
    latent = Marginal(
        truth.grid, truth.log_prior, truth.log_likelihood + torch.tensor([[0.0], [1.0]]), truth.log_q, truth.probs
    )
    assert latent.crossing is None


@pytest.mark.parametrize("layers", [1, 2])
def test_checks_of_a_trained_run(trained: Callable[..., Run], solved: Callable, layers: int) -> None:
    run = trained(layers, 5)
    truth, joint = solved(layers, 5)
    rows = {(row["latent"], row["codeword"], row["target"]): row for row in exact.posterior_checks(truth, joint)}
    top = f"z{layers}"
    assert len(rows) == (4 if layers == 1 else 8)
    mean = 0.5 * sum(rows[top, c, "posterior"]["kl_forward"] for c in (0, 1))
    assert mean == pytest.approx(run.metrics["kl_posterior"], abs=1e-9)
    for (_, _, target), row in rows.items():
        assert row["kl_reverse"] > 0
        assert (row["kl_forward"] is None) == (target == "truncated")
        for name in ("wasserstein", "ks", "wrong_side_q"):
            assert row[name] is None or 0 <= row[name] < 1
    if layers == 2:
        for codeword in (0, 1):
            # Marginals are closer than the joint.
            for key in ("kl_forward", "kl_reverse"):
                whole = rows["z1,z2", codeword, "posterior"][key]
                assert rows["z1", codeword, "posterior"][key] <= whole + 1e-9
                assert rows["z2", codeword, "posterior"][key] <= whole + 1e-9
