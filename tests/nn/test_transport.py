"""The map from a mixture of normals to the standard normal, against scipy, mpmath and finite differences."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import norm

from pyro_onebit.nn import Start, Transport, start_around

MIXTURES = {
    "alike": ([-3.0, 3.0], [0.56, 0.56], [0.5, 0.5]),
    "rare": ([3.0, -3.0], [0.4, 0.7], [0.05, 0.95]),
    "overlapping": ([0.0, 0.5], [1.0, 0.6], [0.3, 0.7]),
    "one": ([0.0, 0.0], [1.0, 1.0], [0.5, 0.5]),
    "three": ([4.0, -4.0, 0.0], [0.5, 0.3, 0.4], [0.2, 0.3, 0.5]),
}


@pytest.fixture(params=MIXTURES)
def mixture(request: pytest.FixtureRequest) -> tuple[list[float], list[float], list[float]]:
    return MIXTURES[request.param]


def places(mixture: tuple, count: int = 4001) -> torch.Tensor:
    """Up to seven standard deviations beyond the outer modes."""
    loc, scale, _ = (np.array(part) for part in mixture)
    return torch.linspace(float((loc - 7 * scale).min()), float((loc + 7 * scale).max()), count, dtype=torch.float64)


def test_values_are_the_quantiles_of_the_mixtures_mass(mixture: tuple) -> None:
    z = places(mixture)
    loc, scale, probs = (np.array(part) for part in mixture)
    a = (z.numpy()[:, None] - loc) / scale
    below, above = norm.cdf(a) @ probs, norm.sf(a) @ probs
    expected = np.where(below < above, norm.ppf(below), norm.isf(above))
    np.testing.assert_allclose(Transport(*mixture)(z)[0].numpy(), expected, rtol=0, atol=1e-10)


def test_the_inverse_undoes_it(mixture: tuple) -> None:
    z, transport = places(mixture), Transport(*mixture)
    h, log_slope = transport(z)
    back = transport.inverse(h)
    torch.testing.assert_close(transport(back)[0], h, rtol=0, atol=1e-13)
    # Where it is flat, a number near a cut that is not 0 has no room for more digits.
    assert bool(((back - z).abs() < 1e-11 + 1e-15 / log_slope.exp()).all())


def test_beyond_the_modes_it_goes_on_straight(mixture: tuple) -> None:
    z, transport = torch.tensor([-100.0, -50.0, 50.0, 100.0], dtype=torch.float64), Transport(*mixture)
    h, log_slope = transport(z)
    torch.testing.assert_close((h[1] - h[0], h[3] - h[2]), (50 * log_slope[0].exp(), 50 * log_slope[2].exp()))
    torch.testing.assert_close(transport.inverse(h), z)


def test_derivatives(mixture: tuple) -> None:
    z, transport = places(mixture).requires_grad_(), Transport(*mixture)
    h, log_slope = transport(z)
    [slope] = torch.autograd.grad(h.sum(), z, retain_graph=True)
    torch.testing.assert_close(slope, log_slope.exp(), rtol=1e-12, atol=0)
    [bend] = torch.autograd.grad(log_slope.sum(), z)
    step = float(z.detach()[1] - z.detach()[0])
    for values, derivative in ((h, slope), (log_slope, bend)):
        differences = (values[2:] - values[:-2]) / (2 * step)
        size = float(derivative.abs().max())
        torch.testing.assert_close(derivative[1:-1], differences, rtol=1e-3, atol=20 * step**2 * max(1.0, size))
    at = h.detach().requires_grad_()
    [inverse] = torch.autograd.grad(transport.inverse(at).sum(), at)
    torch.testing.assert_close(inverse, 1 / slope, rtol=1e-5, atol=0)


def test_slivers_keep_their_digits_in_single_precision() -> None:
    """In a gap of eleven standard deviations h is 1e-8: a distribution function near a half would give 0."""
    transport, z = Transport([-3.0, 3.0], [0.5, 0.5], [0.5, 0.5]), torch.linspace(-1.0, 1.0, 41)
    h, _ = transport(z)
    assert h.dtype == torch.float32
    with mpmath.workdps(40):
        scale = mpmath.mpf(1) / 2
        masses = [
            (mpmath.ncdf((v + 3) / scale) + mpmath.ncdf((v - 3) / scale)) / 2 for v in map(mpmath.mpf, z.tolist())
        ]
        expected = [float(mpmath.sqrt(2) * mpmath.erfinv(2 * mass - 1)) for mass in masses]
    np.testing.assert_allclose(h.numpy(), np.array(expected), rtol=1e-6, atol=1e-30)
    assert float(h[20 + 2].abs()) < 1e-7
    torch.testing.assert_close(transport.inverse(h), z, rtol=1e-5, atol=1e-6)


def test_a_loaded_one_is_the_one_saved() -> None:
    saved, other = Transport(*MIXTURES["rare"]), Transport(*MIXTURES["alike"])
    other.load_state_dict(saved.state_dict())
    z = places(MIXTURES["rare"])
    assert torch.equal(other(z)[0], saved(z)[0])
    assert torch.equal(other.inverse(z), saved.inverse(z))


@pytest.mark.parametrize("prob", [0.5, 0.1])
def test_a_starts_logits_are_the_responsibilities(prob: float) -> None:
    loc, scale = (-0.4, 1.7), (0.3, 0.5)
    [(centre, offset, slope, bend)] = Start(loc=loc, scale=scale).odds(prob)
    z = np.linspace(-2.0, 3.0, 21)
    expected = norm.logpdf(z, loc[1], scale[1]) - norm.logpdf(z, loc[0], scale[0]) + np.log(prob / (1 - prob))
    np.testing.assert_allclose(
        offset + slope * (z - centre) + bend * (z - centre) ** 2, expected, rtol=1e-12, atol=1e-12
    )


def test_two_layers_start_with_their_modes_apart() -> None:
    for loc in ((-1.0, 2.0), (2.0, -1.0)):
        start = start_around(loc, (0.5, 0.25), 2, 5)
        assert start.loc[1] - start.loc[0] == pytest.approx(np.sign(loc[1] - loc[0]) * 6)
        assert start.scale[0] == pytest.approx(2 * start.scale[1])
        # As many standard deviations of either mode to the middle of the gap.
        assert [abs(m / s) for m, s in zip(start.loc, start.scale, strict=True)] == pytest.approx([5.5, 5.5])
    assert start_around((-1.0, 1.0), (0.5, 0.5), 2, 10**6).scale[0] < 3 / 5.5
    assert start_around((0.0, 0.1), (0.9, 0.9), 2, 5).loc == (0.0, 0.0)
    assert not start_around((0.0, 0.1), (0.9, 0.9), 2, 5).holds_the_bit
    assert start_around((-1.0, 2.0), (0.5, 0.25), 1, 5).scale == (0.5, 0.25)
