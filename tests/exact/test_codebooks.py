"""Several bits on one latent: the lowest losses, and every figure against a sum that knows nothing of grids."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import STEP, Ladder, Z, under
from pyro.distributions import Normal

from pyro_onebit import BitsData, Codebook, InputError, OneBitData, exact
from pyro_onebit.data import words_of
from pyro_onebit.diagnostics import surgery
from pyro_onebit.exact.limits import _many_words


@pytest.mark.parametrize(
    ("repeats", "loss", "kl"),
    [
        ((1, 1), 1.38629, 0.0),
        ((5, 5), 1.79518, 1.6530),
        ((500, 500), 2.18987, 2.1330),
        ((50, 1), 1.67515, 1.4901),
        ((5, 5, 5), 2.47584, 2.3355),
    ],
)
def test_the_lowest_loss_of_several_bits(repeats: tuple[int, ...], loss: float, kl: float) -> None:
    best = exact.gaussian_optimum(BitsData(repeats))
    assert best.loss == pytest.approx(loss, abs=1e-5)
    assert best.loss - best.recon == pytest.approx(kl, abs=1e-4)
    assert exact.optimum(BitsData(repeats)) == best.loss
    words = words_of(len(repeats))
    if kl:
        apart = [sum(a != b for a, b in zip(words[c], words[d], strict=True)) for c, d in pairwise(best.order)]
        assert set(apart) == {1}  # a Gray code


def test_other_orders_are_local_optima() -> None:
    data = BitsData((5, 5))
    assert exact.gaussian_optimum(data, order=(0, 1, 2, 3)).loss == pytest.approx(1.8209, abs=1e-4)
    with pytest.raises(InputError, match=r"order is \[0, 1\]; it must have each of 0 to 3 once"):
        exact.gaussian_optimum(data, order=(0, 1))


@pytest.mark.parametrize(("ndims", "prob"), [(1, 0.5), (5, 0.5), (30, 0.2)])
def test_the_search_over_means_and_scales_agrees_for_one_bit(ndims: int, prob: float) -> None:
    many = _many_words(((0,), (1,)), (ndims,), (1.0 - prob, prob), None)
    assert many.loss == pytest.approx(exact.optimum(ndims, prob), abs=1e-10)
    assert exact.optimum(OneBitData(ndims, prob)) == exact.optimum(ndims, prob)


def test_the_lowest_loss_of_any_codebook_counts_its_columns() -> None:
    words = [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    shuffled = [[word[j] for j in (4, 0, 2, 1, 3)] for word in words]
    assert exact.optimum(Codebook(words)) == pytest.approx(exact.optimum(Codebook(shuffled)), abs=1e-9)
    assert math.log(3.0) < exact.optimum(Codebook(words)) < 1.8


def entropy(density: torch.Tensor) -> float:
    """Differential entropy, nats."""
    return -STEP * float((density * density.clamp_min(1e-300).log()).sum())


def kl_of_normals(mean: Any, sd: Any, other_mean: Any, other_sd: Any) -> Any:
    """KL of one normal from another, nats."""
    return math.log(other_sd / sd) + (sd**2 + (mean - other_mean) ** 2) / (2.0 * other_sd**2) - 0.5


@pytest.fixture(scope="module")
def judged(ladder: Ladder) -> tuple[exact.Evaluation, exact.Joint]:
    figures = exact.evaluate(ladder.model, ladder.guide, ladder.data)
    return figures, exact.solve_joint(ladder.model, ladder.guide, ladder.data, figures.truth)


def test_all_figures_against_a_sum(ladder: Ladder, judged: tuple[exact.Evaluation, exact.Joint]) -> None:
    probs, log_q, log_p = ladder.data.probs, ladder.log_q, Normal(0.0, 1.0).log_prob(Z)
    likelihood, evidence = ladder.log_likelihood(Z), ladder.log_evidence
    aggregate = (probs @ log_q.exp()).clamp_min(1e-300)
    mean = lambda f: float(probs @ under(log_q, f))  # noqa: E731
    want = {
        "loss": mean(log_q - log_p - likelihood),
        "recon": mean(-likelihood),
        "recon_per_dim": mean(-likelihood) / ladder.data.ndims,
        "kl1": mean(log_q - log_p),
        "kl2": 0.0,
        "entropy": -float(probs @ probs.log()),
        "log_evidence": float(probs @ evidence),
        "kl_posterior": mean(log_q - ladder.log_posterior),
        "mutual_information": mean(log_q - aggregate.log()),
        "kl_aggregate": mean(aggregate.log() - log_p),
        "optimum": None,  # of a family that nobody knows
    }
    figures, joint = judged
    assert figures == pytest.approx(want, abs=1e-6)

    truth = figures.truth
    apart = STEP * (log_q.exp() - ladder.log_posterior.exp())
    between = (apart.cumsum(-1) - 0.5 * apart).abs()  # of the distribution functions
    checks = {
        "kl_forward": (under(log_q, log_q - ladder.log_posterior), 1e-6),
        "kl_reverse": (under(ladder.log_posterior, ladder.log_posterior - log_q), 1e-6),
        # A distance bends where the functions cross, and is largest between two nodes.
        "wasserstein": (STEP * between.sum(-1), 2e-5),
        "ks": (between.amax(-1), 2e-5),
    }
    for row in exact.posterior_checks(truth, joint)[: len(probs)]:
        assert row["target"] == "posterior"
        for name, (value, tolerance) in checks.items():
            assert row[name] == pytest.approx(float(value[row["codeword"]]), abs=tolerance), name
    parts = surgery(truth, joint)
    assert parts == pytest.approx(
        {**{name: want[name] for name in ("mutual_information", "kl_aggregate", "kl1")}, "kl_top": want["kl1"]},
        abs=1e-6,
    )


def test_all_figures_of_two_layers() -> None:
    """Normals all but for the likelihood, so that a sum over z1 remains; over z1 and z2 for the top's posterior."""
    ladder = Ladder(3, layers=2)
    probs, log_q, log_posterior = ladder.data.probs, ladder.log_q, ladder.log_posterior
    loc, scale, slope, shift, sd = ladder.loc, ladder.scale, ladder.SLOPE, ladder.SHIFT, ladder.SD
    top = Normal(slope * loc + shift, (slope**2 * scale**2 + sd**2).sqrt())
    log_top = top.log_prob(Z[:, None]).T
    aggregate, log_p = (probs @ log_top.exp()).clamp_min(1e-300).log(), Normal(0.0, 1.0).log_prob(Z)
    # I(z1; z2 | x) of two normals that are correlated.
    information = (top.stddev / sd).log()
    # KL(q(z2|z1) ‖ p(z2|z1)).
    above = kl_of_normals(slope * Z + shift, sd, 0.8 * Z, 0.6)
    forward = under(log_q, log_q - log_posterior + above)
    below = kl_of_normals(0.8 * Z, 0.6, slope * Z + shift, sd)
    reverse = under(log_posterior, log_posterior - log_q + below)
    recon = float(probs @ under(log_q, -ladder.log_likelihood(Z)))
    loss = float(probs @ (forward - ladder.log_evidence))
    kl2 = float(probs @ (under(log_top, log_top - log_p) + information))
    # p(x|z2), by a sum over every eighth z1, at every sixteenth z2: both are smooth.
    z1, z2 = Z[::8], Z[::16]
    log_likelihood = ladder.log_likelihood(z1)
    given = (8.0 * STEP * Normal(0.8 * z2[:, None], 0.6).log_prob(z1).exp() @ log_likelihood.exp().T).log().T
    of_top = given + Normal(0.0, 1.0).log_prob(z2) - ladder.log_evidence[:, None]
    kl_top = 16.0 * STEP * (log_top.exp() * (log_top - log_p))[:, ::16].sum(-1)
    kl_posterior = kl_top - 16.0 * STEP * (log_top.exp()[:, ::16] * (of_top - log_p[::16])).sum(-1)
    # The mean of log p(z1|z2) where z1 and z2 are independent given x.
    residual = (loc - 0.8 * top.mean) ** 2 + scale**2 + 0.64 * top.variance
    redrawn = -Normal(loc, scale).entropy() + math.log(0.6) + 0.5 * math.log(2 * math.pi) + residual / 0.72
    want = {
        "loss": loss,
        "recon": recon,
        "recon_per_dim": recon / ladder.data.ndims,
        "kl1": loss - recon - kl2,
        "kl2": kl2,
        "entropy": -float(probs @ probs.log()),
        "log_evidence": float(probs @ ladder.log_evidence),
        "kl_posterior": float(probs @ kl_posterior),
        "mutual_information": float(probs @ under(log_top, log_top - aggregate)),
        "kl_aggregate": float(probs @ under(log_top, aggregate - log_p)),
        "optimum": None,
    }
    figures = exact.evaluate(ladder.model, ladder.guide, ladder.data)
    assert figures == pytest.approx(want, abs=1e-6)

    joint = exact.solve_joint(ladder.model, ladder.guide, ladder.data, figures.truth)
    for own, value in ((joint.kl_forward, forward), (joint.kl_reverse, reverse), (joint.kl1_redrawn, redrawn)):
        torch.testing.assert_close(own, value, rtol=0, atol=1e-6)
    parts = surgery(figures.truth, joint)
    want_parts = {
        "mutual_information": want["mutual_information"],
        "kl_aggregate": want["kl_aggregate"],
        "kl_top": want["mutual_information"] + want["kl_aggregate"],
        "kl1": want["kl1"],
        "kl2": kl2,
        "latents_information": float(probs @ information),
        "kl_lower": want["kl1"] + float(probs @ information),
        "kl1_redrawn": float(probs @ redrawn),
    }
    assert parts == pytest.approx(want_parts, abs=1e-6)


def test_informations_add_up_along_any_chain(ladder: Ladder, judged: tuple[exact.Evaluation, exact.Joint]) -> None:
    """I(x; z) = I(x1; z) + I(x2; z | x1) + …, each conditional term from differential entropies."""
    truth, whole = judged[0].truth, judged[0]["mutual_information"]
    bits = list(zip(*words_of(ladder.data.bits), strict=True))
    density, probs = ladder.log_q.exp(), truth.probs

    def conditional(given: list[int]) -> float:
        """H(z | those bits)."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for c in range(len(probs)):
            groups.setdefault(tuple(bits[j][c] for j in given), []).append(c)
        return sum(
            float(probs[own].sum()) * entropy(probs[own] @ density[own] / probs[own].sum()) for own in groups.values()
        )

    for chain in (list(range(len(bits))), list(reversed(range(len(bits))))):
        terms = []
        for place, j in enumerate(chain):
            known = [sum(bits[k][c] << k for k in chain[:place]) for c in range(len(probs))]
            terms.append(truth.information(bits[j], known))
            want = conditional(chain[:place]) - conditional(chain[: place + 1])
            assert terms[-1] == pytest.approx(want, abs=1e-6)
        assert sum(terms) == pytest.approx(whole, abs=1e-6)
    assert truth.information(range(len(probs))) == pytest.approx(whole, abs=1e-9)


def test_masses_beyond_each_neighbour(ladder: Ladder, judged: tuple[exact.Evaluation, exact.Joint]) -> None:
    rows = exact.posterior_checks(judged[0].truth, judged[1])
    shares = ladder.data.probs.cumsum(0)  # they lie in the order of their numbers
    cuts = Normal(0.0, 1.0).icdf(torch.cat([torch.zeros(1), shares[:-1], torch.ones(1)]).double())
    for row in rows:
        own = Normal(ladder.loc[row["codeword"]], ladder.scale[row["codeword"]])
        below, above = cuts[row["codeword"]], cuts[row["codeword"] + 1]
        assert row["below_q"] == pytest.approx(float(own.cdf(below)), abs=1e-6)
        assert row["above_q"] == pytest.approx(float(1.0 - own.cdf(above)), abs=1e-6)
        assert row["wrong_side_q"] == pytest.approx(row["below_q"] + row["above_q"], abs=1e-12)
