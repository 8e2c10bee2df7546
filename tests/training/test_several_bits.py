"""Runs of several bits: what identifies them, where they start, and that everything can be trained on them.

Of guides `tests/guides` says so.
"""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import SEED
from scipy import stats

from pyro_onebit import BitsData, Codebook, Config, InputError, OneBitData, Run, build, exact, fit
from pyro_onebit.distributions import TruncatedNormal
from pyro_onebit.nn import Start, start_around
from pyro_onebit.reproducibility import default_dtype
from pyro_onebit.studies import StudyGrid, complete_metrics, run_name, to_inference_data


def test_dimensions_are_dealt_or_given() -> None:
    assert build(Config(ndims=7, bits=3))[2] == BitsData((3, 2, 2))
    assert build(Config(repeats=(50, 5, 1)))[2] == BitsData((50, 5, 1))
    assert Config(repeats=(3, 2, 2)) == Config(ndims=7, bits=3)
    assert Config(repeats=(4,)) == Config(ndims=4)
    assert build(Config(ndims=4))[2] == OneBitData(4)
    assert run_name(Config(repeats=(5, 1))) == "layers1-ndims000006-bits2-repeats5_1-gaussian-elbo-seed0"
    assert [config.ndims for config in StudyGrid(repeats=(5, 1)).configs()] == [6, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 5, "ndims": 9}, "bits is 5; it must be a whole number from 1 to 4"),
        ({"bits": 3, "ndims": 2}, "every bit needs a dimension"),
        ({"repeats": (3, 0)}, "repeats is 3 0"),
        ({"repeats": (3, 1), "ndims": 9}, "leave these out"),
        ({"repeats": (3, 1), "bits": 3}, "leave these out"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config(**settings)
    if "ndims" in settings and "repeats" in settings:
        with pytest.raises(InputError, match="leave ndims out"):
            StudyGrid(repeats=settings["repeats"], ndims=(9,)).configs()


@pytest.mark.parametrize("loc", [(-1.2, -0.3, 1.4, 0.4), (0.1, 2.0, -1.0, 0.9)])
def test_the_decoder_starts_as_the_responsibility(loc: tuple[float, ...]) -> None:
    """The best decoder of the starting guide: each bit's probability given z."""
    scale = (0.2, 0.3, 0.1, 0.25)
    model, guide, data = build(Config(repeats=(3, 1), prob=0.3, dtype="float64"))
    with default_dtype(torch.float64):
        for program in (model, guide):
            program.reset_parameters(Start(loc=loc, scale=scale, head=0.0), 0.3)
    q = guide.q_z1(data.codewords)
    assert q.mean[:, 0].tolist() == pytest.approx(loc)
    assert q.stddev[:, 0].tolist() == pytest.approx(scale, rel=1e-6)
    z = torch.linspace(-2.0, 2.5, 40, dtype=torch.float64)
    joint = data.probs * torch.distributions.Normal(*map(torch.tensor, (loc, scale))).log_prob(z[:, None]).exp()
    want = joint @ data.codewords / joint.sum(-1, keepdim=True)
    torch.testing.assert_close(model.p_x(z[:, None]).mean, want, rtol=1e-6, atol=1e-9)


def test_other_codewords_are_judged_and_not_trained() -> None:
    config = Config(ndims=3, steps=1)
    model, guide, _ = build(config)
    data = Codebook([[0, 0, 0], [1, 1, 0], [0, 1, 1]])
    assert exact.evaluate(model, guide, data)["entropy"] == pytest.approx(math.log(3.0))
    for make in (lambda: fit(model, guide, data, config), lambda: Run.of(model, guide, data)):
        with pytest.raises(InputError, match="data is a Codebook; a run's is a BitsData"):
            make()


def test_two_layers_start_with_modes_side_by_side() -> None:
    start = start_around((0.8, -1.1, 0.2, -1.05), (0.1, 0.1, 0.3, 0.1), 2, 10)
    means, scales = zip(*sorted(zip(start.loc, start.scale, strict=True)), strict=True)
    assert means[0] == means[1]  # which overlap
    assert means[-1] - means[0] == pytest.approx(6.0)
    gaps = [(means[i + 1] - means[i]) / (scales[i + 1] + scales[i]) for i in (1, 2)]
    assert gaps == pytest.approx([5.5, 5.5])
    assert len(set(start_around((0.1, 0.0, 0.2, 0.1), (1.0,) * 4, 2, 10).loc)) == 1


def test_planted_thresholds_give_each_codeword_its_share_of_the_prior() -> None:
    start, order = Start(separation=0.01, centre="threshold"), (0, 1, 3, 2)
    shares = [stats.norm.cdf(cut) for cut in start.cuts(0.3, (2, 1))]
    probs = BitsData((2, 1), 0.3).probs[list(order)]
    assert shares == pytest.approx(probs.cumsum(0)[:-1].tolist())
    assert start.means(0.3, (1,)) == pytest.approx([stats.norm.isf(0.3) - 0.01, stats.norm.isf(0.3) + 0.01])


@pytest.mark.parametrize(("bound", "end", "side"), [(-0.3, 0.4, 1.0), (0.4, -0.3, -1.0), (6.0, 6.5, 1.0)])
def test_a_normal_restricted_to_an_interval_is_scipys(bound: float, end: float, side: float) -> None:
    loc, scale = 0.2, 0.7
    q = TruncatedNormal(*(torch.tensor(v, dtype=torch.float64) for v in (loc, scale, bound, side, end)))
    low, high = sorted(((bound - loc) / scale, (end - loc) / scale))
    want = stats.truncnorm(low, high, loc, scale)
    z = torch.linspace(min(bound, end) + 1e-3, max(bound, end) - 1e-3, 7, dtype=torch.float64)
    assert q.log_prob(z).tolist() == pytest.approx(want.logpdf(z).tolist(), rel=1e-9)
    assert q.cdf(z).tolist() == pytest.approx(want.cdf(z).tolist(), abs=1e-9)
    noise = torch.tensor([-1.5, 0.1, 2.0], dtype=torch.float64)
    assert q.from_noise(noise).tolist() == pytest.approx(want.ppf(stats.norm.cdf(noise)).tolist(), rel=1e-7)
    assert q.log_prob(torch.tensor([low * scale + loc - 0.1, high * scale + loc + 0.1])).tolist() == [-math.inf] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "iwae", "preset": "reference"},
        {"objective": "dreg", "model": "learned_prior"},
        {"objective": "rws"},
        {"objective": "beta", "start": "analytic"},
    ],
    ids=str,
)
def test_everything_of_one_layer_trains_on_two_bits(settings: dict) -> None:
    config = Config(repeats=(3, 1), steps=4, **settings)
    run = fit(*build(config), config)
    assert math.isfinite(run.metrics["loss"])
    assert (run.metrics["bits"], run.metrics["repeats"]) == (2, "3 1")


def test_a_run_of_two_bits_is_as_good_as_it_can_be() -> None:
    config = Config(ndims=10, bits=2, seed=0, start="analytic")
    run = fit(*build(config), config)
    assert run.metrics["optimum"] == exact.optimum(BitsData((5, 5)))
    assert 0.0 <= run.metrics["loss"] - run.metrics["optimum"] < 0.002
    posterior = to_inference_data(run, draws=10)["posterior"]
    assert posterior["codeword"].values.tolist() == ["00", "01", "10", "11"]


def test_a_run_of_a_version_without_bits_has_one(trained: Callable[..., Run]) -> None:
    metrics = trained(1, 5).metrics
    old = {name: value for name, value in metrics.items() if name not in ("bits", "repeats")}
    assert complete_metrics(old) == complete_metrics(metrics)


def test_the_first_layer_of_several_bits_is_trained_longer() -> None:
    first = [Config(layers=2, ndims=12, bits=bits).recipe for bits in (1, 2, 3)]
    assert [recipe.first_steps for recipe in first] == [first[0].first_steps * longer for longer in (1, 4, 6)]
    assert len({recipe.steps - recipe.first_steps for recipe in first}) == 1


@pytest.mark.parametrize(("repeats", "prob"), [((3, 1), 0.2), ((5, 2, 1), 0.5), ((1, 1, 1, 1), 0.5)])
def test_intervals_are_never_empty_whatever_the_weights(repeats: tuple[int, ...], prob: float) -> None:
    for seed in range(SEED, SEED + 8):
        config = Config(repeats=repeats, prob=prob, guide="truncated", steps=5, seed=seed)
        _, guide, data = build(config)
        q = guide.q_z1(data.codewords).base_dist
        assert (q.side * (q.end - q.bound) > 0.0).all()
    assert math.isfinite(fit(*build(config), config).metrics["loss"])
