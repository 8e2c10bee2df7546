"""Every registered guide, the reference ones included, by one set of tests."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from conftest import SEED
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_onebit import (
    GUIDES,
    Config,
    InputError,
    OneBitData,
    OneLayerGuide,
    Run,
    build,
    exact,
    fit,
    load_run,
    register_guide,
    save_run,
)
from pyro_onebit.distributions import sample_from_noise
from pyro_onebit.guides import MeanFieldGuide, SkipGuide, TopDownGuide, mean_field_optimum, top_down_optimum
from pyro_onebit.programs import Pair
from pyro_onebit.training import LatticeNoise

NAMES = sorted(GUIDES)


def programs(name: str) -> tuple:
    """Untrained, and as they are while being judged, from the plain start: smooth enough for every check."""
    return build(Config(ndims=3, guide=name, layers=GUIDES[name].layers, prob=0.3, preset="reference", seed=1))


@cache
def judged(name: str) -> exact.Evaluation:
    return exact.evaluate(*programs(name))


def first_of(guide: nn.Module, x: torch.Tensor) -> Any:
    """The conditional of the latent that a guide draws first."""
    return guide.q_z2(x) if isinstance(guide, TopDownGuide) else guide.q_z1(x)


def second_of(guide: nn.Module, z: torch.Tensor, x: torch.Tensor) -> Any:
    """That of the other one, given the first."""
    if isinstance(guide, TopDownGuide):
        return guide.q_z1(z, x)
    if isinstance(guide, SkipGuide):
        return guide.q_z2(z, x)
    return guide.q_z2(x).expand(z.shape[:-1]) if isinstance(guide, MeanFieldGuide) else guide.q_z2(z)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_with_and_without_particles(name: str) -> None:
    _, guide, data = programs(name)
    q = first_of(guide, data.codewords)
    assert (q.batch_shape, q.event_shape) == ((2,), (1,))
    for sample_shape in ((), (7,)):
        z = q.rsample(sample_shape)
        assert z.shape == (*sample_shape, 2, 1)
        assert q.log_prob(z).shape == (*sample_shape, 2)
        if guide.layers == 2:
            other = second_of(guide, z, data.codewords)
            assert other.log_prob(other.rsample()).shape == (*sample_shape, 2)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_pyro_guide(name: str) -> None:
    model, guide, data = programs(name)
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        losses = [
            Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, data.rows(10)) / 10
            for particles in (1, 4000)
        ]
    assert math.isfinite(losses[0])
    assert losses[1] == pytest.approx(judged(name)["loss"], rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_one(name: str) -> None:
    truth = judged(name).truth
    torch.testing.assert_close(truth.log_q.exp() @ truth.weights, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name: str) -> None:
    """Noise carried to the latent has the density that log_prob says: by the change of variables."""
    _, guide, data = programs(name)
    guide = guide.double()
    noise = torch.linspace(-4.0, 4.0, 41, dtype=torch.float64)[:, None, None].expand(-1, 2, 1)
    q = first_of(guide, data.codewords.double())
    step = 1e-5
    with torch.no_grad():
        slope = (sample_from_noise(q, noise + step) - sample_from_noise(q, noise - step)) / (2 * step)
        z = sample_from_noise(q, noise)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise) - slope.log()
        error = (q.log_prob(z) - expected.squeeze(-1)).abs().median()
    # The oracle's quantiles are linear between the nodes of its grid.
    assert float(error) < (0.02 if name == "oracle" else 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_against_finite_differences_of_the_exact_loss(name: str) -> None:
    model, guide, data = programs(name)
    if name == "oracle":
        guide.train()
    parameters = [*model.parameters(), *guide.parameters()]
    torch.manual_seed(3)
    direction = [torch.randn_like(p) for p in parameters]
    particles = 20_000
    with LatticeNoise(particles, data.probs, 1.5), pyro.get_param_store().scope():
        elbo = Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1)
        elbo.loss_and_grads(model, guide, data.codewords)
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    step, losses = 1e-3, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
        losses.append(exact.evaluate(model, guide.eval(), data)["loss"])
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.02, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_trained_on_two_bits_saved_and_loaded(name: str, tmp_path: Path) -> None:
    # From other seeds, or with other probabilities, a truncated guide's interval may be empty at the first step.
    config = Config(repeats=(3, 1), guide=name, layers=GUIDES[name].layers, steps=5)
    run = fit(*build(config), config)
    save_run(run, tmp_path)
    loaded = load_run(tmp_path)
    loaded.judge()
    assert loaded.metrics == run.metrics


def test_the_oracles_loss_is_the_evidence(trained: Callable[..., Run]) -> None:
    run = trained(1, 5)
    oracle = GUIDES["oracle"](5)
    oracle.bind_model(run.model)
    figures = exact.evaluate(run.model, oracle, run.data)
    assert figures["loss"] == pytest.approx(-run.metrics["log_evidence"], abs=1e-6)
    assert figures["kl_posterior"] == pytest.approx(0.0, abs=1e-8)


def test_the_prior_leaves_nothing_to_the_latent() -> None:
    config = Config(ndims=3, guide="prior", seed=SEED)
    assert fit(*build(config), config).metrics["loss"] == pytest.approx(3 * math.log(2), abs=1e-3)


class Broken(OneLayerGuide):
    def __init__(self, ndims: int, prob: float, arch: object) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Misnamed(Broken):
    def q_z1(self, x: torch.Tensor) -> pyro.distributions.Distribution:
        return pyro.distributions.Normal(x.new_zeros(len(x), 1), self.scale).to_event(1)

    def forward(self, x: torch.Tensor) -> None:
        self.register()
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z1(x))


class Misshapen(Broken):
    def q_z1(self, x: torch.Tensor) -> pyro.distributions.Distribution:
        return pyro.distributions.Normal(x.new_zeros(len(x), 2), self.scale).to_event(1)


class Incomplete(Broken):
    def q_z1(self, x: torch.Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Misnamed, "guide 'mine', model 'one_layer': the guide draws z, and the model z1"),
        (Misshapen, "guide 'mine', .*: site 'z1' of the guide has events of shape .2,.; latents must be scalar"),
        (Incomplete, "guide 'mine', .*: the guide fails on the codewords: TypeError"),
    ],
)
def test_a_guide_that_does_not_fit_is_named(guide: type, message: str) -> None:
    register_guide("mine")(guide)
    config = Config(guide="mine", ndims=3)
    with pytest.raises(InputError, match=message):
        fit(*build(config), config)


class ScoredNormal(pyro.distributions.Normal):
    has_rsample = False


class Unreparameterised(Misnamed):
    """Its gradient is the score's."""

    def forward(self, x: torch.Tensor) -> None:
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            scale = self.scale.expand(len(x), 1)
            pyro.sample("z1", ScoredNormal(torch.zeros_like(scale), scale).to_event(1))


class Reading(Misnamed):
    """It reads a tensor's value."""

    def forward(self, x: torch.Tensor) -> None:
        self.register()
        assert float(self.scale) > 0
        with pyro.plate("data", x.shape[-2], dim=-1):
            pyro.sample("z1", self.q_z1(x))


@pytest.mark.parametrize("guide", [Unreparameterised, Reading])
def test_a_guide_that_cannot_be_compiled_is_trained_as_it_is(guide: type) -> None:
    register_guide("mine")(guide)
    config = Config(guide="mine", ndims=2, steps=50, seed=SEED)
    model, program, data = build(config)
    before = exact.evaluate(model, program, data)["loss"]
    run = fit(model, program, data, config)
    assert run.metrics["loss"] < before
    assert set(run.history) == {"stage", "step", "loss", "lr"}


@pytest.mark.parametrize("ndims", [1, 30])
@pytest.mark.parametrize("prob", [0.5, 0.1])
def test_the_more_a_guide_may_depend_on_the_lower_its_limit(ndims: int, prob: float) -> None:
    """A top-down guide can be a mean field, and that one a one-layer guide under a z2 that nobody uses."""
    limits = [
        OneBitData(ndims, prob).entropy,
        top_down_optimum(ndims, prob),
        mean_field_optimum(ndims, prob),
        exact.optimum(ndims, prob),
    ]
    if ndims == 1:
        assert limits == pytest.approx([limits[0]] * 4)
    else:
        assert limits == sorted(limits)
    assert mean_field_optimum(ndims, prob) == pytest.approx(mean_field_optimum(ndims, 1 - prob), abs=1e-6)


@pytest.mark.parametrize(("name", "steps"), [("mean_field", 500), ("top_down", 1000)])
def test_training_comes_to_the_limit_and_not_below(name: str, steps: int) -> None:
    """Thousands of weights, trained, and a handful of numbers, minimised by quadrature, come to the same."""
    config = Config(ndims=5, layers=2, guide=name, steps=steps, seed=SEED)
    figures = fit(*build(config), config).metrics
    assert -2e-5 < figures["loss"] - figures["optimum"] < 0.02
    assert figures["optimum"] > figures["entropy"] + 0.1


def test_what_a_row_says_reaches_the_second_latent() -> None:
    """Of a conditional that is given rows as well, and of one that is not."""
    for name, differs in (("two_layer_skip", True), ("two_layer", False)):
        _, guide, data = programs(name)
        z = torch.zeros(2, 1)
        mean = second_of(guide, z, data.codewords).mean
        assert bool((mean[0] != mean[1]).any()) == differs


def test_latents_that_hang_on_nothing_before_are_drawn_anew() -> None:
    pair = Pair(*programs("mean_field"))
    draws = pair.draw(pair.guide, 50)
    assert all(len(draws[latent].unique()) == 100 for latent in ("z1", "z2"))
