"""Several bits on one latent: the lowest losses, and every figure against a sum that knows nothing of grids."""

import math
from itertools import pairwise

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal

from pyro_onebit import BitsData, Codebook, InputError, OneBitData, exact
from pyro_onebit.data import words_of
from pyro_onebit.exact.limits import _many_words


@pytest.mark.parametrize(
    ("repeats", "loss", "kl"),
    [
        ((1, 1), 1.38629, 0.0),
        ((2, 2), 1.63411, 1.4093),
        ((5, 5), 1.79518, 1.6530),
        ((500, 500), 2.18987, 2.1330),
        ((50, 2), 1.76899, 1.6115),
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


class Ladder:
    """Codewords at places of their own under a decoder that is no best one, in closed form."""

    def __init__(self, bits: int) -> None:
        self.data = BitsData(tuple(range(2, 2 + bits)), tuple(0.5 - 0.1 * j for j in range(bits)))
        count = 2**bits
        rank = torch.arange(count, dtype=torch.float64)
        self.loc = (2.0 * rank / (count - 1) - 1.0) * 1.4
        self.scale = 0.9 / count + 0.03 * rank / count
        self.words = torch.tensor(words_of(bits), dtype=torch.float64)
        self.slopes = torch.linspace(3.0, -2.0, bits, dtype=torch.float64)

    def number(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, None] == self.data.codewords).all(-1).long().argmax(-1)

    def odds(self, z: torch.Tensor) -> torch.Tensor:
        """Log-odds of each bit, ``(..., K)``, given z ``(..., 1)``."""
        return self.slopes * z + 0.3 * torch.sin(4.0 * z)

    def model(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z1", Normal(torch.zeros(len(x), 1, dtype=torch.float64), 1.0).to_event(1))
            logits = self.odds(z).repeat_interleave(torch.tensor(self.data.repeats), -1)
            pyro.sample("x", Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        at = self.number(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", Normal(self.loc[at][:, None], self.scale[at][:, None]).to_event(1))


@pytest.fixture(scope="module", params=[2, 3])
def ladder(request: pytest.FixtureRequest) -> Ladder:
    return Ladder(request.param)


#: Even steps over the whole line: the sum over them of what vanishes smoothly at both ends has every digit.
Z = torch.linspace(-12.0, 12.0, 48_001, dtype=torch.float64)
STEP = float(Z[1] - Z[0])


def entropy(density: torch.Tensor) -> float:
    """Differential entropy, nats."""
    return -STEP * float((density * density.clamp_min(1e-300).log()).sum())


def test_all_figures_against_a_sum(ladder: Ladder) -> None:
    probs, repeats = ladder.data.probs, torch.tensor(ladder.data.repeats, dtype=torch.float64)
    odds = ladder.odds(Z[:, None])
    likelihood = ((ladder.words[:, None] * odds - torch.nn.functional.softplus(odds)) * repeats).sum(-1)
    q = Normal(ladder.loc[:, None], ladder.scale[:, None])
    log_q, log_p = q.log_prob(Z), Normal(0.0, 1.0).log_prob(Z)
    density = log_q.exp()
    evidence = (STEP * (likelihood + log_p).exp().sum(-1)).log()
    aggregate = (probs @ density).clamp_min(1e-300)
    mean = lambda f: float(probs @ (STEP * (density * f).sum(-1)))  # noqa: E731
    want = {
        "recon": mean(-likelihood),
        "kl1": mean(log_q - log_p),
        "loss": mean(log_q - log_p - likelihood),
        "log_evidence": float(probs @ evidence),
        "kl_posterior": mean(log_q - log_p - likelihood + evidence[:, None]),
        "mutual_information": mean(log_q - aggregate.log()),
        "kl_aggregate": mean(aggregate.log() - log_p),
        "entropy": -float(probs @ probs.log()),
    }
    figures = exact.evaluate(ladder.model, ladder.guide, ladder.data)
    assert {name: figures[name] for name in want} == pytest.approx(want, abs=1e-6)


def test_informations_add_up_along_any_chain(ladder: Ladder) -> None:
    """I(x; z) = I(x1; z) + I(x2; z | x1) + …, each conditional term from differential entropies."""
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    bits = list(zip(*words_of(ladder.data.bits), strict=True))
    density, probs = Normal(ladder.loc[:, None], ladder.scale[:, None]).log_prob(Z).exp(), truth.probs

    def conditional(given: list[int]) -> float:
        """H(z | those bits)."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for c in range(len(probs)):
            groups.setdefault(tuple(bits[j][c] for j in given), []).append(c)
        return sum(
            float(probs[own].sum()) * entropy(probs[own] @ density[own] / probs[own].sum()) for own in groups.values()
        )

    whole = exact.evaluate(ladder.model, ladder.guide, ladder.data)["mutual_information"]
    for chain in (list(range(len(bits))), list(reversed(range(len(bits))))):
        terms = []
        for place, j in enumerate(chain):
            known = [sum(bits[k][c] << k for k in chain[:place]) for c in range(len(probs))]
            terms.append(truth.information(bits[j], known))
            want = conditional(chain[:place]) - conditional(chain[: place + 1])
            assert terms[-1] == pytest.approx(want, abs=1e-6)
        assert sum(terms) == pytest.approx(whole, abs=1e-6)
    assert truth.information(range(len(probs))) == pytest.approx(whole, abs=1e-9)


def test_masses_beyond_each_neighbour(ladder: Ladder) -> None:
    truth = exact.solve(ladder.model, ladder.guide, ladder.data)
    rows = exact.posterior_checks(truth, exact.solve_joint(ladder.model, ladder.guide, ladder.data, truth))
    shares = ladder.data.probs.cumsum(0)  # they lie in the order of their numbers
    cuts = Normal(0.0, 1.0).icdf(torch.cat([torch.zeros(1), shares[:-1], torch.ones(1)]).double())
    for row in rows:
        own = Normal(ladder.loc[row["codeword"]], ladder.scale[row["codeword"]])
        below, above = cuts[row["codeword"]], cuts[row["codeword"] + 1]
        assert row["below_q"] == pytest.approx(float(own.cdf(below)), abs=1e-6)
        assert row["above_q"] == pytest.approx(float(1.0 - own.cdf(above)), abs=1e-6)
        assert row["wrong_side_q"] == pytest.approx(row["below_q"] + row["above_q"], abs=1e-12)
