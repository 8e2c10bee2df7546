import math
from collections.abc import Callable

import pytest
import torch
from conftest import SEED, LinearDecoder
from scipy.optimize import minimize
from scipy.stats import norm
from torch import nn
from torch.distributions import Independent, Normal

from pyro_onebit import GUIDES, Config, OneBitData, Run, build, exact, fit
from pyro_onebit.diagnostics import gap_split, ideal_gap


class Given(nn.Module):
    """A Gaussian for each codeword; `shared`: of one scale."""

    def __init__(self, loc: tuple[float, float], scale: tuple[float, float]) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(loc))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def q_z1(self, x: torch.Tensor) -> Independent:
        ones = x.mean(-1, keepdim=True)
        parts = [part[0] + (part[1] - part[0]) * ones for part in (self.loc, self.log_scale)]
        return Independent(Normal(parts[0], parts[1].exp()), 1)


def split_of(model: nn.Module, guide: nn.Module, data: OneBitData) -> tuple:
    truth = exact.solve(model, guide, data)
    joint = exact.solve_joint(model, guide, data, truth)
    return truth, joint, gap_split(model, guide, data, truth, joint)


def best_gaussian(log_posterior: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """min KL(N(m, s²) ‖ p) by a trapezoidal rule in the noise and a search without gradients."""
    noise = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weight = torch.from_numpy(norm.pdf(noise.numpy())) * (noise[1] - noise[0])

    def kl(v: list[float]) -> float:
        z = v[0] + math.exp(v[1]) * noise
        log_q = -0.5 * noise.square() - v[1] - 0.5 * math.log(2 * math.pi)
        return float(weight @ (log_q - log_posterior(z)))

    options = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 2000}
    return min(minimize(kl, [m, -0.5], method="Nelder-Mead", options=options).fun for m in (-1.0, 1.0))


def test_the_approximation_gap_of_a_gaussian() -> None:
    model, guide, data = LinearDecoder(3.0), Given((-0.6, 0.9), (0.5, 0.3)), OneBitData(5)
    truth, joint, split = split_of(model, guide, data)
    for codeword, sign in ((0, -1.0), (1, 1.0)):

        def log_posterior(z: torch.Tensor, sign: float = sign, codeword: int = codeword) -> torch.Tensor:
            likelihood = 5 * torch.nn.functional.logsigmoid(sign * 3.0 * z)
            return Normal(0.0, 1.0).log_prob(z) + likelihood - truth.log_evidence[codeword]

        assert float(split.approximation[codeword]) == pytest.approx(best_gaussian(log_posterior), abs=1e-6)
    assert torch.equal(split.total, joint.kl_forward)
    # To rounding: the difference and the sum are rounded, each to half a unit in the last place.
    torch.testing.assert_close(split.amortisation + split.approximation, split.total, rtol=2.0**-51, atol=0)
    assert float(split.amortisation.min()) > 0.01


@pytest.mark.parametrize("name", ["gaussian", "mixture", "flow", "truncated", "two_layer", "oracle", "prior"])
def test_both_parts_are_gaps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_onebit.diagnostics.gaps._ITERATIONS", 10)
    config = Config(ndims=3, guide=name, layers=GUIDES[name].layers, prob=0.3, steps=60, seed=SEED)
    run = fit(*build(config), config)
    _, joint, split = split_of(run.model, run.guide, run.data)
    assert float(split.approximation.min()) >= -1e-8
    assert float(split.amortisation.min()) >= -1e-8
    assert torch.allclose(split.amortisation + split.approximation, joint.kl_forward, rtol=0, atol=1e-12)
    if name == "oracle":
        assert float(split.total.abs().max()) < 1e-6


def test_a_guide_that_is_no_known_function_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, data = LinearDecoder(3.0), Given((-0.6, 0.9), (0.5, 0.3)), OneBitData(5)
    _, _, known = split_of(model, guide, data)
    monkeypatch.setattr("pyro_onebit.diagnostics.gaps.sample_from_noise", lambda *_: None)
    truth, _, split = split_of(model, guide, data)
    torch.testing.assert_close(split.approximation, known.approximation, rtol=0, atol=1e-6)
    assert ideal_gap(guide, data, truth) is None


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


def test_two_layers_have_no_ideal_gap(trained: Callable[..., Run], solved: Callable) -> None:
    run = trained(2, 5)
    assert ideal_gap(run.guide, run.data, solved(2, 5)[0]) is None
