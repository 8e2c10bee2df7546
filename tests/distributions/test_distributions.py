import math

import pytest
import torch
from scipy.stats import kstest, truncnorm
from torch.distributions import Independent, Laplace, Normal, StudentT

from pyro_onebit.distributions import NormalMixture, TruncatedNormal, sample_from_noise


def mixture(logits: torch.Tensor, loc: torch.Tensor, raw: torch.Tensor) -> NormalMixture:
    return NormalMixture(logits, loc, raw.exp())


def truncated(loc: torch.Tensor, raw: torch.Tensor, bound: torch.Tensor, side: float = 1.0) -> TruncatedNormal:
    return TruncatedNormal(loc, raw.exp(), bound, torch.tensor(side, dtype=loc.dtype))


MIXTURES = [
    ([0.0, 0.0], [-1.0, 1.0], [0.0, 0.0]),
    ([2.0, -3.0, 0.0], [0.1, 4.0, -0.5], [-3.0, 0.5, -1.0]),
    ([0.0, 0.0], [-10.0, 10.0], [-1.0, -1.0]),
]


@pytest.mark.parametrize("parts", MIXTURES)
def test_a_mixtures_quantiles(parts: tuple) -> None:
    q = mixture(*torch.tensor(parts, dtype=torch.float64))
    noise = torch.linspace(-16.0, 16.0, 401, dtype=torch.float64)
    z = q.from_noise(noise)
    assert (z.diff() > 0).all()
    # Between modes far apart the quantile runs through a place without mass.
    there = q.log_prob(z) > -60
    score = torch.special.ndtri(q.cdf(z))
    inside = there & (noise.abs() < 6)
    assert float((score - noise)[inside].abs().max()) < 1e-6


@pytest.mark.parametrize("parts", MIXTURES[:2])
def test_a_mixtures_gradient(parts: tuple) -> None:
    noise = torch.tensor([-14.0, -3.0, -0.4, 0.0, 1.1, 3.0, 14.0], dtype=torch.float64)
    parameters = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in parts]
    assert torch.autograd.gradcheck(lambda *p: mixture(*p).from_noise(noise), parameters, atol=1e-5)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_truncated_normals_gradient(side: float) -> None:
    noise = torch.tensor([-14.0, -3.0, -0.4, 0.0, 1.1, 3.0, 14.0], dtype=torch.float64)
    parameters = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in (0.3, -0.5, 0.1)]
    assert torch.autograd.gradcheck(lambda *p: truncated(*p, side).from_noise(noise), parameters, atol=1e-6)


@pytest.mark.parametrize("bound", [-3.0, 0.2, 4.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_truncated_normal_is_scipys(side: float, bound: float) -> None:
    loc, scale = 0.3, 0.7
    q = TruncatedNormal(*(torch.tensor(v, dtype=torch.float64) for v in (loc, scale, bound, side)))
    cut = (bound - loc) / scale
    reference = truncnorm(*((cut, math.inf) if side > 0 else (-math.inf, cut)), loc=loc, scale=scale)
    z = torch.tensor(reference.ppf([0.001, 0.3, 0.7, 0.999]))
    torch.testing.assert_close(q.log_prob(z), torch.from_numpy(reference.logpdf(z.numpy())))
    torch.testing.assert_close(q.cdf(z), torch.from_numpy(reference.cdf(z.numpy())))
    torch.testing.assert_close(sample_from_noise(q, torch.special.ndtri(q.cdf(z))), z)
    assert float(q.log_prob(torch.tensor(bound - side))) == -math.inf


def test_single_precision_does_not_carry_a_sample_over_the_bound() -> None:
    q = TruncatedNormal(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.1), torch.tensor(1.0))
    z = q.from_noise(torch.linspace(-17.0, 0.0, 1000))
    assert torch.isfinite(q.log_prob(z)).all()


@pytest.mark.parametrize("q", [mixture(*torch.tensor(MIXTURES[1])), truncated(*torch.tensor([0.3, -0.5, 0.1]))])
def test_samples(q: torch.distributions.Distribution) -> None:
    torch.manual_seed(0)
    z = q.rsample((4000,))
    assert kstest(z.numpy(), lambda at: q.cdf(torch.as_tensor(at, dtype=torch.float32)).numpy()).pvalue > 1e-3


def test_expansion() -> None:
    for q in (mixture(*torch.zeros(3, 2, 1, 4)), TruncatedNormal(*torch.ones(4, 2, 1))):
        larger = q.to_event(1).expand((5, 2))
        assert larger.rsample().shape == (5, 2, 1)
        assert larger.log_prob(larger.rsample()).shape == (5, 2)


def test_what_is_known_of_other_distributions() -> None:
    noise = torch.linspace(-3.0, 3.0, 7)
    laplace = Laplace(torch.tensor(1.0), torch.tensor(0.5))
    torch.testing.assert_close(laplace.cdf(sample_from_noise(laplace, noise)), torch.special.ndtr(noise))
    assert torch.isfinite(sample_from_noise(laplace, torch.tensor([-17.0, 17.0]))).all()
    assert sample_from_noise(Independent(Normal(1.0, 2.0).expand((7,)), 1), noise)[0] == 1.0 - 3.0 * 2.0
    assert sample_from_noise(StudentT(3.0), noise) is None
