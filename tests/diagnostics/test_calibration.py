"""Calibration against exact levels, the parts of the ELBO against sampling, and the known tail index."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import CHANCE, STEP, FixedGuide, HardDecoder, Ladder, Z, deviation, linear_model, under
from scipy.stats import binom, binomtest, kstest

from pyro_onebit import GUIDES, Config, InputError, OneBitData, Run, build, exact
from pyro_onebit.diagnostics import calibration_curve, simulate_calibration, surgery, tail_index
from pyro_onebit.exact import gaussian_optimum
from pyro_onebit.programs import float64_copy


def test_the_exact_posterior_is_calibrated() -> None:
    seen = simulate_calibration(linear_model(3, 0.0), GUIDES["prior"](3), OneBitData(3), 4000)
    assert seen.ks_pvalue > 0.01
    assert seen.symmetry_pvalue > 0.01
    # Two of eight rows are codewords.
    assert float((seen.codeword >= 0).double().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("layers", [1, 2])
def test_levels_follow_the_exact_curve(trained: Callable[..., Run], solved: Callable, layers: int) -> None:
    """P(level <= F_q(z)) = F_p(z) on each codeword."""
    run, (truth, _) = trained(layers, 5), solved(layers, 5)
    draws, simulations = 100, 14_000  # a distance of 1/28 then has a chance of CHANCE
    seen = simulate_calibration(run.model, run.guide, run.data, simulations, draws=draws)
    of_q, of_p = calibration_curve(truth)
    # A level is estimated by a rank, which is binomial given F_q(z), and spread evenly within it: so the very law of
    # the levels is known.
    edges = np.linspace(0, 1, 4001)
    given = binom.pmf(np.arange(draws + 1), draws, 0.5 * (edges[1:] + edges[:-1])[:, None])
    for codeword in (0, 1):
        levels = seen.levels[seen.codeword == codeword].numpy()
        curve = np.interp(edges, of_q[codeword], of_p[codeword])
        curve[[0, -1]] = 0.0, 1.0  # with what lies beyond the nodes
        ranks = np.diff(curve) @ given
        below = np.append(0.0, ranks.cumsum())
        law = lambda u, below=below: np.interp(u, np.linspace(0, 1, draws + 2), below)  # noqa: E731
        assert kstest(levels, law).pvalue > CHANCE
    no_codeword = int((seen.codeword < 0).sum())
    assert binomtest(no_codeword, simulations, 1 - float(truth.log_evidence.exp().sum())).pvalue > CHANCE


def test_calibration_of_several_bits(ladder: Ladder) -> None:
    """Both curves at their nodes, and of what is drawn how often each codeword is met, at which level on average."""
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    of_q, of_p = calibration_curve(truth)
    q = torch.distributions.Normal(ladder.loc[:, None], ladder.scale[:, None])
    # A sum over steps is the integral to their middles.
    own = STEP * ladder.log_posterior.exp()
    below = own.cumsum(-1) - 0.5 * own
    torch.testing.assert_close(of_q, q.cdf(truth.z), rtol=0, atol=1e-6)
    for codeword, curve in enumerate(of_p):
        want = np.interp(truth.z.numpy(), Z.numpy(), below[codeword].numpy())
        assert curve.numpy() == pytest.approx(want, abs=1e-6)
    simulations, draws = 8000, 50
    seen = simulate_calibration(ladder.model, ladder.guide, ladder.data, simulations, draws)
    level = under(ladder.log_posterior, q.cdf(Z))
    for codeword, evidence in enumerate(ladder.log_evidence.exp().tolist()):
        levels = seen.levels[seen.codeword == codeword]
        assert binomtest(len(levels), simulations, evidence).pvalue > CHANCE
        # A rank among draws, spread evenly within it; by Hoeffding's inequality.
        want = (draws * float(level[codeword]) + 0.5) / (draws + 1)
        assert float(levels.mean()) == pytest.approx(want, abs=math.sqrt(math.log(2 / CHANCE) / 2 / len(levels)))


def test_a_narrow_gaussian_is_found_out() -> None:
    """The best Gaussian guide at n = 5, with its decoder."""
    best = gaussian_optimum(5)
    model, guide = linear_model(5, 2 * best.loc[1] / best.scale[1] ** 2), FixedGuide(best.loc[1], best.scale[1])
    seen = simulate_calibration(model, guide, OneBitData(5), 2000)
    assert seen.ks_pvalue < 1e-6
    assert float(((seen.levels < 0.05) | (seen.levels > 0.95)).double().mean()) > 0.15


def test_counts_are_checked(trained: Callable[..., Run]) -> None:
    run = trained(1, 5)
    with pytest.raises(InputError, match="simulations is 0"):
        simulate_calibration(run.model, run.guide, run.data, 0)


def test_surgery_of_one_layer(trained: Callable[..., Run], solved: Callable) -> None:
    parts = surgery(*solved(1, 5))
    assert parts["mutual_information"] + parts["kl_aggregate"] == pytest.approx(trained(1, 5).metrics["kl1"], abs=1e-9)
    assert "latents_information" not in parts


@pytest.mark.parametrize("ndims", [5, 1000])
def test_surgery_of_two_layers(trained: Callable[..., Run], solved: Callable, ndims: int) -> None:
    """Each part by sampling, with densities from the tables where a marginal is asked for."""
    run, (truth, joint) = trained(2, ndims), solved(2, ndims)
    parts = surgery(truth, joint)
    assert parts["kl1"] < -1
    assert parts["kl1"] == pytest.approx(parts["kl_lower"] - parts["latents_information"], abs=1e-9)
    assert parts["kl2"] == pytest.approx(parts["kl_top"] + parts["latents_information"], abs=1e-9)
    assert min(parts[name] for name in ("kl_lower", "kl_top", "latents_information", "kl1_redrawn")) > 0

    model, guide, x = float64_copy(run.model), float64_copy(run.guide), run.data.codewords.double()
    torch.manual_seed(0)
    with torch.no_grad():
        q_z1 = guide.q_z1(x)
        z1, again = q_z1.sample((100_000,)), q_z1.sample((100_000,))
        z2 = guide.q_z2(z1).sample()
        log_q2 = guide.q_z2(z1).log_prob(z2)
        p_z1 = model.p_z1(z2)
        top = [np.interp(z2[:, c, 0], truth.z, truth.log_q[c]) for c in (0, 1)]
        information = log_q2 - torch.from_numpy(np.stack(top, 1))
        lower = q_z1.log_prob(z1) + information - p_z1.log_prob(z1)
        redrawn = q_z1.log_prob(again) - p_z1.log_prob(again)
    for name, values in {"latents_information": information, "kl1_redrawn": redrawn}.items():
        mean, error = float(values.mean()), deviation(values.flatten(), values.numel())
        assert abs(mean - parts[name]) < error + 1e-4, name
    # The lower latent's divergence has values so rare and large that the draws may lack them. So its law is tabulated,
    # which has them, and the draws are held against that law, cut off.
    atoms, mass = _law_of_kl_lower(model, guide, x, truth)
    assert float(mass @ atoms) == pytest.approx(parts["kl_lower"], abs=1e-6)
    sampled, cut = lower.flatten().clamp(-3, 3), atoms.clamp(-3, 3)
    error = deviation(cut, len(sampled), mass)
    assert abs(float(sampled.mean() - mass @ cut)) < error < 2e-3


@torch.no_grad()
def _law_of_kl_lower(
    model: torch.nn.Module, guide: torch.nn.Module, x: torch.Tensor, truth: exact.Truth
) -> tuple[torch.Tensor, torch.Tensor]:
    """log q(z1|z2,x) - log p(z1|z2) under q, of both codewords, in narrow bins: their means and masses."""
    (z1, w1), (z2, w2) = ((grid.nodes, grid.weights) for grid in truth.grids)
    log_q1 = guide.q_z1(x).log_prob(z1[:, None, None]).T
    bins, totals = 40_000, torch.zeros(2, 40_000, dtype=z1.dtype)
    for rows in torch.arange(len(z2)).split(256):
        log_q2 = guide.q_z2(z1[:, None]).log_prob(z2[rows, None, None])
        log_p1 = model.p_z1(z2[rows, None]).log_prob(z1[:, None, None]).T
        for codeword in (0, 1):
            mass = w2[rows, None] * w1 * (log_q1[codeword] + log_q2).exp()
            value = log_q1[codeword] + log_q2 - truth.log_q[codeword, rows, None] - log_p1
            at = ((torch.asinh(value) * 1e3).long() + bins // 2).clamp(0, bins - 1).flatten()
            totals[0] += torch.bincount(at, mass.flatten(), bins)
            totals[1] += torch.bincount(at, torch.where(mass > 0, mass * value, 0.0).flatten(), bins)
    mass, total = totals[:, totals[0] > 0]
    return total / mass, mass / 2


def test_tail_index() -> None:
    assert tail_index(FixedGuide(0.972, 0.2351), OneBitData(5)).tolist() == pytest.approx([1 - 0.2351**2] * 2, abs=1e-6)
    assert tail_index(FixedGuide(0.5, 1.2), OneBitData(5)).tolist() == [0.0, 0.0]
    _, guide, data = build(Config(ndims=3, layers=2))
    with pytest.raises(InputError, match="one layer"):
        tail_index(guide, data)


def test_the_tail_index_is_that_of_the_law() -> None:
    """Far out, ln P(r > y) falls with slope -1/k in ln y."""
    guide, data = FixedGuide(0.6, 0.5), OneBitData(50)
    model = HardDecoder(1e-9)
    truth = exact.solve(model, guide, data)
    law = exact.solve_joint(model, guide, data, truth).law
    log_r, order = law.log_ratio[1].sort(descending=True)
    above = law.q[1][order].cumsum(0).log()
    far = (above < -25) & (above > -45)
    slope = torch.linalg.lstsq(
        torch.stack([log_r[far], torch.ones(int(far.sum())).double()], 1), above[far][:, None]
    ).solution[0, 0]
    [index, _] = tail_index(guide, data).tolist()
    assert -1 / float(slope) == pytest.approx(index, abs=0.1)
