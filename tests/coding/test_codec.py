"""The codec: it loses nothing, and its rate is the loss."""

import math
from collections.abc import Callable
from functools import cache

import constriction
import numpy as np
import pyro
import pytest
import torch
from conftest import CHANCE, FixedGuide, linear_model
from pyro.distributions import Bernoulli, Independent
from scipy.special import logsumexp
from torch import nn

from pyro_onebit import Config, OneBitData, OneLayerGuide, TwoLayerModel, build
from pyro_onebit.coding import Chain, Codec, Joint, Table
from pyro_onebit.distributions import TruncatedNormal, standard_normal
from pyro_onebit.errors import DamagedError, InputError, ProgramError
from pyro_onebit.exact import gaussian_optimum
from pyro_onebit.nn import REFERENCE


def threshold(x: torch.Tensor) -> None:
    """Each dimension is codeword 1's above z1 = 0, but for an error in a million."""
    with pyro.plate("data", len(x), dim=-1):
        z1 = pyro.sample("z1", standard_normal(x))
        probs = torch.where(z1 < 0, 1e-6, 1 - 1e-6).to(z1.dtype).expand(*z1.shape[:-1], x.shape[-1])
        pyro.sample("x", Bernoulli(probs).to_event(1), obs=x)


class HalvesGuide(OneLayerGuide):
    """The prior cut at zero: what the posterior of a hard threshold is."""

    def q_z1(self, x: torch.Tensor) -> Independent:
        side = 2.0 * x.mean(-1, keepdim=True) - 1.0
        zero = torch.zeros_like(side)
        return TruncatedNormal(zero, zero + 1.0, zero, side).to_event(1)


def linear(ndims: int, mean: float, sd: float) -> tuple[nn.Module, nn.Module, OneBitData]:
    """A Gaussian guide and its best decoder."""
    return linear_model(ndims, 2.0 * mean / sd**2), FixedGuide(mean, sd), OneBitData(ndims)


def samples_of(count: int, seed: int = 0, prob: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < prob).astype(np.uint8)


def net_rate(codec: Codec, samples: np.ndarray) -> float:
    words = codec.encode(samples)
    assert np.array_equal(codec.decode(words, len(samples)), samples)
    return (codec.bits(words) - codec.initial_bits) / len(samples)


def programs(run):
    return run.model, run.guide, run.data


@pytest.fixture(scope="module")
def coded(trained) -> Callable[..., Codec]:
    """The default codecs of `trained`'s runs."""
    return cache(lambda *settings: Codec(*programs(trained(*settings))))


@pytest.mark.parametrize("ndims", [1, 1000])
@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_encoded_comes_back(layers: int, ndims: int) -> None:
    """From a model that is not trained: what it costs is ignored here."""
    config = Config(ndims=ndims, layers=layers, prob=0.3, seed=ndims)
    for dither in (True, False):
        codec = Codec(*build(config), dither=dither, seed=3, bins=512, points=128)
        for samples in (
            *(np.full(count, value, np.uint8) for count in (0, 1, 17) for value in (0, 1)),
            samples_of(500),
            samples_of(5000, seed=1, prob=0.05),
        ):
            words = codec.encode(samples)
            assert np.array_equal(codec.decode(words, len(samples)), samples)
        assert np.array_equal(words, codec.encode(samples))


@pytest.mark.parametrize("popped", [True, False])
@pytest.mark.parametrize("size", [2, 3, 100, 4096])
def test_the_coder_has_exactly_the_masses_of_a_table(popped: bool, size: int) -> None:
    weights = 30.0 * np.random.default_rng(size).standard_normal((2, size))
    table = Table(weights, popped=popped)
    assert (table.masses.sum(-1) == 2**24).all()
    assert popped or (table.masses > 0).all()
    kept = table.masses[1].nonzero()[0]
    cumulative = np.cumsum(table.masses[1].astype(np.int64)) - table.masses[1]
    state = 2**32 + 12345
    for symbol in kept if len(kept) > 1 else []:
        coder = constriction.stream.stack.AnsCoder(np.array([12345, 1], np.uint32))
        assert coder.pos()[1] == state
        table.push(coder, int(symbol), 1)
        whole, rest = divmod(state, int(table.masses[1, symbol]))
        words = coder.get_compressed().astype(object)
        assert sum(word << (32 * i) for i, word in enumerate(words)) == whole * 2**24 + cumulative[symbol] + rest
        assert table.pop(coder, 1) == symbol
        assert coder.pos()[1] == state


def test_a_table_of_quantiles_never_draws_what_is_too_rare() -> None:
    log_weights = np.log(np.array([[1.0, 1e-12, 1.0]]))
    assert Table(log_weights, popped=True).masses[0].tolist() == [2**23, 0, 2**23]
    assert Table(log_weights, popped=False).masses[0, 1] > 0


@pytest.mark.parametrize(("layers", "ndims"), [(1, 5), (2, 5), (2, 1000)])
def test_the_expected_rate_is_the_loss(trained, coded, layers: int, ndims: int) -> None:
    rate = coded(layers, ndims).rate
    assert rate.neg_elbo == pytest.approx(trained(layers, ndims).metrics["loss"] / math.log(2), abs=1e-9)
    assert rate.mean == pytest.approx(rate.neg_elbo, abs=0.005)
    assert rate.neg_elbo + rate.discretisation + rate.leak == pytest.approx(rate.mean, abs=1e-12)


def log_mgf(codec: Codec, s: float) -> np.ndarray:
    """ln E exp(s bits) of a sample's bits, of each codeword, from the top latent down: `Codec.rate` has the moments."""
    total = -s * codec._scheme.prior.log2_masses[0]
    for posterior, likelihood in reversed(codec._scheme.links):
        log_q, log_p = posterior.log2_masses, likelihood.log2_masses
        if likelihood is not codec._scheme.pixels:
            log_p = log_p.T
        drawn = np.isfinite(log_q)
        bits = np.where(drawn, log_q, 0.0) - np.where(drawn, log_p, 0.0)
        total = logsumexp(np.where(drawn, math.log(2) * log_q, -np.inf) + s * bits + total, axis=-1)
    return total


def rate_error(codec: Codec, count: int, ones: float, sign: int) -> float:
    """How far a stream's rate may be above (sign 1) or below what is expected, but for a chance of `CHANCE` / 2.

    By Chernoff's inequality, as in `conftest.excess`: rare samples cost so much that the standard error of the rate,
    times a number, is no limit.
    """
    budget, se = math.log(2 / CHANCE) / count, codec.rate.standard_error(count, [1.0 - ones, ones])
    tilts = math.sqrt(2 * budget / count) / se * np.logspace(-1, 1, 15)
    mean = codec.rate.of([1.0 - ones, ones])
    return min(float(log_mgf(codec, sign * s) @ [1 - ones, ones] - sign * s * mean + budget) / s for s in tilts)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_dithered_stream_has_the_expected_rate(trained, layers: int) -> None:
    """On grids that are so coarse that the law of a sample's bits is summed quickly."""
    codec = Codec(*programs(trained(layers, 5)), seed=1, bins=512, points=128)
    samples = samples_of(60_000)
    rate, ones = codec.rate, float(samples.mean())
    below, above = (rate_error(codec, len(samples), ones, sign) for sign in (-1, 1))
    assert -below < net_rate(codec, samples) - rate.of([1.0 - ones, ones]) < above


#: Of the order in which each guide's latents are drawn and coded.
ORDERS = {"two_layer": Chain, "two_layer_skip": Joint, "top_down": Joint, "mean_field": Joint}


@pytest.mark.parametrize("guide", ORDERS)
def test_every_factorisation_is_coded_at_its_loss(guide: str) -> None:
    """From the plain start, where densities are smooth, and no sample is much dearer than another."""
    config = Config(ndims=3, layers=2, guide=guide, prob=0.3, preset="reference", seed=2)
    model, q, data = build(config)
    codec = Codec(model, q, data, bins=512, points=128, seed=4)
    assert type(codec._scheme) is ORDERS[guide]
    rate = codec.rate
    assert rate.mean == pytest.approx(rate.neg_elbo, abs=2e-3)
    samples = samples_of(20_000, prob=0.3)
    ones = float(samples.mean())
    assert net_rate(codec, samples) == pytest.approx(
        rate.of([1.0 - ones, ones]), abs=5.5 * rate.standard_error(len(samples), [1.0 - ones, ones])
    )
    naive = Codec(model, q, data, bins=512, points=128, dither=False)
    assert np.array_equal(naive.decode(naive.encode(samples[:5000]), 5000), samples[:5000])


def test_x_that_depends_on_both_latents_is_refused() -> None:
    class Both(TwoLayerModel):
        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", len(x), dim=-1):
                z2 = pyro.sample("z2", standard_normal(x))
                z1 = pyro.sample("z1", self.p_z1(z2))
                pyro.sample("x", self.p_x(z1 + z2), obs=x)

    _, guide, data = build(Config(ndims=3, layers=2, preset="reference"))
    with pytest.raises(InputError, match="x depends on z1 alone, not on z2"):
        Codec(Both(3, arch=REFERENCE), guide, data)


def test_a_truncated_normal_at_a_hard_threshold() -> None:
    codec = Codec(threshold, HalvesGuide(), OneBitData(1000))
    # A thousand dimensions, each wrong once in a million, on top of the bit itself.
    expected = 1.0 - 1000 * math.log1p(-1e-6) / math.log(2)
    assert expected == pytest.approx(1.0015, abs=1e-4)
    assert codec.rate.mean == pytest.approx(expected, abs=1e-4)
    assert net_rate(codec, samples_of(3000)) == pytest.approx(1.0015, abs=1e-3)


def test_without_dither_the_smooth_optimum_is_not_what_is_measured() -> None:
    """The best Gaussian guide at n = 1000 and its decoder (FACTS: loss 1.50049)."""
    dithered, naive = (Codec(*linear(1000, 0.9720, 0.2351), dither=dither) for dither in (True, False))
    assert dithered.rate.mean == pytest.approx(1.50049 / math.log(2), abs=0.001)
    samples = samples_of(20_000)
    # Without it tails never occur, and with them goes what the loss is heavy with.
    assert net_rate(naive, samples) == pytest.approx(2.09, abs=0.02)
    assert dithered.rate.mean - 2.09 > 0.07


def test_latents_are_drawn_from_q() -> None:
    """Of a program whose shape is known: how much latents hang on each other without dither is a matter of that."""
    best = gaussian_optimum(5)
    run = linear(5, best.loc[1], best.scale[1])
    drawn: dict[bool, np.ndarray] = {}
    for dither in (True, False):
        codec = Codec(*run, dither=dither)
        [(posterior, _)] = codec._scheme.links
        pop, seen = posterior.pop, []
        posterior.pop = lambda coder, x, pop=pop, seen=seen: seen.append(pop(coder, x)) or seen[-1]
        codec.encode(np.ones(20_000, np.uint8))
        drawn[dither] = np.array(seen)
        q = posterior.masses[1] / 2**24
    levels = {dither: np.cumsum(q)[k] - q[k] / 2 for dither, k in drawn.items()}
    correlation = {dither: np.corrcoef(u[1:], u[:-1])[0, 1] for dither, u in levels.items()}
    # A level is the mean of a uniform number over a bin, so that what bounds the mean of those bounds its mean; and
    # the correlation of so many is nearly normal.
    assert abs(levels[True].mean() - 0.5) < math.sqrt(2 * math.log(2 / CHANCE) / 12 / 20_000)
    assert abs(correlation[True]) < 5 / math.sqrt(20_000)
    assert abs(correlation[False]) > 0.1


def test_a_finer_grid_adds_less(trained, coded) -> None:
    coarse, fine = Codec(*programs(trained(2, 5)), bins=256, points=256).rate, coded(2, 5).rate
    assert abs(fine.discretisation) < abs(coarse.discretisation)


def test_a_fingerprint_tells_codecs_apart(trained) -> None:
    run = trained(1, 5)
    prints = [
        Codec(*programs(run), **changes).fingerprint
        for changes in ({}, {}, {"bins": 1024}, {"dither": False}, {"seed": 1})
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    with torch.no_grad():
        moved = trained(1, 5)
        weight = moved.model.p_x.net.layers[-1].bias
        before = weight.clone()
        weight[2] += 1e-5
        assert Codec(*programs(moved)).fingerprint != prints[0]
        weight.copy_(before)


@pytest.mark.parametrize("damage", ["cut", "flip", "longer", "shorter", "noise", "empty", "zero"])
def test_other_words_are_refused(coded, damage: str) -> None:
    codec = coded(2, 5)
    samples = samples_of(2000)
    words, count = codec.encode(samples), len(samples)
    words = {"cut": words[3:], "noise": np.arange(1, 50, dtype=np.uint32), "empty": words[:0]}.get(damage, words).copy()
    if damage == "flip":
        words[len(words) // 2] ^= 64
    if damage == "zero":
        words[-1] = 0
    count += {"longer": 1, "shorter": -1}.get(damage, 0)
    with pytest.raises(DamagedError):
        codec.decode(words, count)


def test_a_count_beyond_all_words_is_refused_soon(coded) -> None:
    codec = coded(1, 5)
    with pytest.raises(DamagedError):
        codec.decode(codec.encode(samples_of(1000)), 2**63)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": 1000}, "power of two"),
        ({"bins": 8}, "power of two"),
        ({"points": 4}, "from 16"),
        ({"bins": 65536, "points": 4096}, "bins times points"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(trained, settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Codec(*programs(trained(2, 5)), **settings)


def test_a_decoder_that_looks_at_x_is_refused() -> None:
    def copying(x: torch.Tensor) -> None:
        with pyro.plate("data", x.shape[-2], dim=-1):
            z1 = pyro.sample("z1", standard_normal(x))
            before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1)
            pyro.sample("x", Bernoulli(logits=4.0 * z1 + before).to_event(1), obs=x)

    codec = Codec(copying, FixedGuide(1.0, 0.5), OneBitData(3))
    with pytest.raises(ProgramError, match="no product of Bernoulli"):
        codec.encode(np.array([0, 1, 1], dtype=np.uint8))
