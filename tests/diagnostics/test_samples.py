"""Samples alone, held against an exact posterior that is known in closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import CHANCE, FixedGuide, HardDecoder
from scipy.special import ndtri
from scipy.stats import halfnorm, kstest, wasserstein_distance

from pyro_onebit import InputError, OneBitData, exact
from pyro_onebit.diagnostics import compare_samples


@pytest.fixture(scope="module")
def truth() -> exact.Truth:
    """Of a decoder that cuts at zero: the posterior of codeword 1 is a half-normal, that of 0 its mirror image."""
    return exact.solve(HardDecoder(1e-6), FixedGuide(0.9, 0.3), OneBitData(100))


def exact_draws(count: int) -> np.ndarray:
    u = np.random.default_rng(0).uniform(size=(count, 2))
    return np.stack([ndtri(0.5 * u[:, 0]), ndtri(0.5 + 0.5 * u[:, 1])], 1)


def test_exact_draws_pass(truth: exact.Truth) -> None:
    draws = exact_draws(4000)
    found = compare_samples(truth, draws)
    want = kstest(draws[:, 1], halfnorm.cdf)
    assert float(found.ks[1]) == pytest.approx(want.statistic, abs=1e-6)
    assert float(found.ks_pvalue[1]) == pytest.approx(want.pvalue, rel=1e-3)
    assert (found.ks_pvalue > CHANCE).all()
    assert torch.allclose(found.coverage, found.levels[:, None], atol=5.0 * (0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("shift", [0.0, 0.3, 5.0])
def test_wasserstein(truth: exact.Truth, shift: float) -> None:
    """Beside SciPy's, of a million of the half-normal's own quantiles; also of draws that lie where it ends."""
    draws = exact_draws(500) + shift
    quantiles = halfnorm.ppf((np.arange(10**6) + 0.5) / 10**6)
    for codeword, sign in ((0, -1.0), (1, 1.0)):
        want = wasserstein_distance(sign * draws[:, codeword], quantiles)
        assert float(compare_samples(truth, draws).wasserstein[codeword]) == pytest.approx(want, abs=2e-5)


def test_another_law_is_told(truth: exact.Truth) -> None:
    """Of lengths that differ, and of another library's arrays."""
    gaussian = torch.randn(300, generator=torch.Generator().manual_seed(0))
    found = compare_samples(truth, [-0.9 + 0.3 * gaussian, (0.9 + 0.3 * gaussian[:200]).numpy()])
    assert (found.ks_pvalue < 1e-6).all()
    assert (found.coverage[0] > 0.6).all()


def test_the_lowest_latent_of_two(trained: Callable, solved: Callable) -> None:
    _, joint = solved(2, 5)
    run = trained(2, 5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z1 = torch.stack([run.guide.q_z1(word[None]).sample((2000,)).ravel() for word in run.data.codewords], 1)
    found = compare_samples(joint.z1, z1.detach())
    distances = joint.z1.distances(joint.z1.log_posterior)
    assert (found.wasserstein - distances["wasserstein"]).abs().max() < 0.1


@pytest.mark.parametrize("samples", [np.zeros((5, 3)), [[1.0], []], [[1.0], [np.nan]]])
def test_what_are_no_samples(truth: exact.Truth, samples) -> None:
    with pytest.raises(InputError, match="they must be 2, one for each codeword, of finite numbers"):
        compare_samples(truth, samples)
