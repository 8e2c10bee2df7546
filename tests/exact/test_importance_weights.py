"""The exact law of the weight: worked cases, closed forms, and both sums over the joint grid."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import FixedGuide, HardDecoder, LinearDecoder
from scipy import stats

from pyro_onebit import InputError, OneBitData, Run, exact
from pyro_onebit.diagnostics import khat
from pyro_onebit.exact import Truth, WeightLaw

#: FACTS' gaps of the hard decoder: log p - E[IWAE_K].
WORKED = {2: 0.65353, 10: 0.43785, 100: 0.21278, 1000: 0.08412, 10**4: 0.03649, 10**5: 0.02331, 10**6: 0.01719}


def doubles(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def law_of(atoms: list[float], q: list[float]) -> WeightLaw:
    """The same law for two codewords, of log evidence -1 and -2."""
    return WeightLaw(doubles([atoms] * 2), doubles([q] * 2), doubles([-1.0, -2.0]), doubles([0.5, 0.5]))


def tables(model: torch.nn.Module, guide: torch.nn.Module, data: OneBitData) -> tuple[Truth, exact.Joint]:
    truth = exact.solve(model, guide, data)
    return truth, exact.solve_joint(model, guide, data, truth)


def test_worked_case() -> None:
    truth, joint = tables(HardDecoder(1e-6), FixedGuide(0.972, 0.2351), OneBitData(1000))
    assert truth.log_evidence.tolist() == pytest.approx([-0.694147] * 2, abs=1e-6)
    assert (truth.log_evidence + joint.kl_reverse).tolist() == pytest.approx([1.612700] * 2, abs=1e-6)
    gaps = truth.log_evidence - joint.law.expected_bound([1, *WORKED])
    for gap, expected in zip(gaps.tolist(), [1.000449, *WORKED.values()], strict=True):
        assert gap == pytest.approx([expected] * 2, abs=6e-6)


def test_slope_where_the_variance_is_finite() -> None:
    _, joint = tables(HardDecoder(1e-6), FixedGuide(0.6, 0.9), OneBitData(1000))
    law = joint.law
    gap = law.log_evidence - law.expected_bound([100, 10**5])
    assert (100 * gap[0]).tolist() == pytest.approx([0.23209] * 2, abs=1e-5)
    assert (10**5 * gap[1]).tolist() == pytest.approx((0.5 * law.variance).tolist(), rel=1e-3)


def test_two_draws_against_a_double_integral() -> None:
    """E log((w1 + w2) / 2) directly, over both draws."""
    ndims, slope, loc, scale = 3, 4.0, 0.8, 0.6
    _, joint = tables(LinearDecoder(slope), FixedGuide(loc, scale), OneBitData(ndims))

    z = loc + scale * np.linspace(-8, 8, 161)
    log_q = stats.norm.logpdf(z, loc, scale)
    log_w = -ndims * np.logaddexp(0.0, -slope * z) + stats.norm.logpdf(z) - log_q
    mass = 0.1 * scale * np.exp(log_q)  # trapezoid: both ends are negligible
    direct = mass @ np.logaddexp(log_w[:, None], log_w) @ mass - math.log(2.0)
    assert float(joint.law.expected_bound([2])[0, 1]) == pytest.approx(direct, abs=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0, -1.0])
def test_two_atoms_by_the_binomial_sum(alpha: float) -> None:
    """r is a or b, with mean 1; K draws hold j of the first."""
    share, a = 0.3, 0.2
    b = (1 - share * a) / (1 - share)
    law = law_of([math.log(a), math.log(b)], [share, 1 - share])
    for k in (1, 3, 50):
        mean = sum(
            stats.binom.pmf(j, k, share) * math.log((j * a ** (1 - alpha) + (k - j) * b ** (1 - alpha)) / k)
            for j in range(k + 1)
        ) / (1 - alpha)
        assert law.expected_bound([k], alpha)[0].tolist() == pytest.approx([mean - 1, mean - 2], abs=1e-8)
    moment = (share * a ** (1 - alpha) + (1 - share) * b ** (1 - alpha)) ** (1 / (1 - alpha))
    assert law.limit(alpha).tolist() == pytest.approx([math.log(moment) - 1, math.log(moment) - 2], abs=1e-12)


def test_a_miss_that_lasts_very_long() -> None:
    """With probability 1/2 a draw's weight is e^-100000 of what it should be: K draws all miss with 2^-K."""
    miss = -1e5
    law = law_of([miss, math.log(2.0)], [0.5, 0.5])
    k = 10
    hits = [stats.binom.pmf(j, k, 0.5) * math.log(2.0 * j / k) for j in range(1, k + 1)]
    assert float(law.expected_bound([k])[0, 0]) == pytest.approx(sum(hits) + 2.0**-k * miss - 1, rel=1e-9)


def test_orders_near_one_keep_their_digits() -> None:
    """Two atoms and two draws, by the binomial sum in exact arithmetic to first and second order in 1 - alpha."""
    share, a = 0.3, 0.2
    b = (1 - share * a) / (1 - share)
    law = law_of([math.log(a), math.log(b)], [share, 1 - share])

    def bound(order: float) -> float:
        step = 1 - order
        pairs = [(a, a, share**2), (a, b, 2 * share * (1 - share)), (b, b, (1 - share) ** 2)]
        # log of the mean of e^(step l), through expm1 and log1p, which keep their digits.
        means = [0.5 * (math.expm1(step * math.log(x)) + math.expm1(step * math.log(y))) for x, y, _ in pairs]
        return sum(mass * math.log1p(mean) for (*_, mass), mean in zip(pairs, means, strict=True)) / step

    for order in (1 - 1e-3, 1 - 1e-4, 1 - 1e-6, 1 - 1e-9, 1 + 1e-7, 1 + 1e-3):
        assert float(law.expected_bound([2], order)[0, 0]) == pytest.approx(bound(order) - 1, abs=2e-9), order


@pytest.mark.parametrize(
    ("particles", "alpha", "message"),
    [
        ([0], 0.0, "particles has 0; each must be a number, at least 1"),
        ([2, 0.5], 0.0, "particles has 0.5"),
        ([True], 0.0, "particles has True"),
        (["2"], 0.0, "particles has '2'"),
        ([math.inf], 0.0, "particles has inf"),
        ([2], math.inf, "alpha is inf; it must be a finite number"),
        ([2], math.nan, "alpha is nan"),
    ],
)
def test_bounds_that_are_not_defined(particles: list, alpha: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        law_of([0.0], [1.0]).expected_bound(particles, alpha)


@pytest.mark.parametrize("layers", [1, 2])
class TestTrainedRuns:
    def test_identities(self, solved: Callable, layers: int) -> None:
        truth, joint = solved(layers, 5)
        elbo = -sum(truth.terms.values())
        law = joint.law
        assert torch.allclose(joint.kl_forward, truth.log_evidence - elbo, atol=1e-9, rtol=0)
        # An atom has the mean of r in a bin of log r, of width 0.001 near r = 1 and 0.1% of log r far out; the mean of
        # log r is lower than its logarithm, by width²/24: 4.2e-8 (1 + E (log r)²).
        second = (law.q * torch.where(law.q > 0, law.log_ratio, 0.0) ** 2).sum(-1)
        assert ((law.limit(1.0) - elbo).abs() < 1e-7 * (1.0 + second)).all()
        assert torch.allclose(law.limit(0.0), law.log_evidence, atol=1e-8, rtol=0)
        p = (law.q.log() + law.log_ratio).exp()  # not q times r: a trained guide's r may overflow where q is tiny
        under_p = (p * law.log_ratio.clamp_min(-700)).sum(-1)
        assert torch.allclose(under_p, joint.kl_reverse, atol=1e-6, rtol=0)
        assert (joint.z1.log_prior.exp() @ joint.z1.weights).item() == pytest.approx(1.0, abs=1e-6)
        assert (joint.kl_reverse > 0).all()

    def test_doubled_nodes(self, trained: Callable[..., Run], solved: Callable, layers: int) -> None:
        run = trained(layers, 5)
        truth, joint = solved(layers, 5)
        finer = exact.tabulate(run.model, run.guide, run.data, [grid.halved() for grid in truth.grids])
        again = exact.solve_joint(run.model, run.guide, run.data, finer)
        ks = [2, 100, 10**4, 10**6]
        assert torch.allclose(joint.law.expected_bound(ks), again.law.expected_bound(ks), atol=2e-7, rtol=0)
        assert torch.allclose(joint.kl_reverse, again.kl_reverse, atol=1e-6, rtol=0)
        assert torch.allclose(joint.kl1_redrawn, again.kl1_redrawn, atol=1e-5, rtol=1e-6)
        for name, value in truth.distances(truth.log_posterior).items():
            finer_value = finer.distances(finer.log_posterior)[name]
            # The distribution functions' distance has kinks, and its largest value is sought among nodes.
            tolerance = {"ks": 1e-4, "wasserstein": 1e-5}.get(name, 1e-6)
            assert torch.allclose(value, finer_value, atol=tolerance, rtol=0), name


def test_quantiles_are_an_ideal_sample() -> None:
    """Of a weight whose tail has the index 1 - s^2 = 0.945, which k-hat only sees with more draws than there are."""
    s, mean = 0.2351, 0.972
    _, joint = tables(HardDecoder(1e-6), FixedGuide(mean, s), OneBitData(1000))
    of_few, of_many = (khat(joint.law.quantiles(draws)) for draws in (10**3, 10**7))
    noise = torch.randn(10**3, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = mean + s * noise
    log_weight = 0.5 * (noise.square() - z.square()) - torch.where(z < 0, 1000 * math.log(1e6), 0.0)
    drawn = khat(log_weight)
    assert of_few.tolist() == pytest.approx([float(drawn.mean())] * 2, abs=0.01)
    assert of_many.tolist() == pytest.approx([0.73] * 2, abs=0.01)
