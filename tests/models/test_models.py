"""Models and guides are real Pyro programs."""

import copy

import pyro
import pytest
import torch
from conftest import SEED
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

from pyro_onebit import Config, OneBitData, build, fit
from pyro_onebit.nn import REFERENCE

CASES = [
    Config(ndims=3, layers=layers, prob=prob, preset=preset)
    for layers in (1, 2)
    for prob in (0.5, 0.2)
    for preset in ("default", "reference")
]


@pytest.fixture(params=CASES, ids=lambda c: f"{c.layers}-{c.prob}-{c.preset}")
def trio(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, OneBitData]:
    with pyro.get_param_store().scope():
        yield build(request.param)


def test_sites_plate_and_shapes(trio: tuple) -> None:
    model, guide, data = trio
    x = data.rows(7)
    guide_trace = poutine.trace(guide).get_trace(x)
    trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    trace.compute_log_prob()
    latents = ["z1", "z2"][: model.layers]
    for name in latents:
        assert trace.nodes[name]["value"].shape == (7, 1)
        assert trace.nodes[name]["log_prob"].shape == (7,)
        assert [frame.name for frame in trace.nodes[name]["cond_indep_stack"]] == ["data"]
        assert name in guide_trace.nodes
    assert trace.nodes["x"]["log_prob"].shape == (7,)
    assert trace.nodes["x"]["is_observed"]


def test_conditionals_broadcast_over_leading_dimensions(trio: tuple) -> None:
    model, guide, data = trio
    z = torch.randn(4, 5, 1)
    assert model.p_x(z).batch_shape == (4, 5)
    assert model.p_x(z).event_shape == (3,)
    assert guide.q_z1(data.rows(5)).batch_shape == (5,)
    if model.layers == 2:
        assert model.p_z1(z).batch_shape == guide.q_z2(z).batch_shape == (4, 5)
        assert model.p_z1(z).event_shape == guide.q_z2(z).event_shape == (1,)


def test_likelihood_is_the_bernoulli(trio: tuple) -> None:
    model, _, _ = trio
    p_x = model.p_x(torch.randn(50, 1, 1))
    x = torch.bernoulli(torch.full((6, 3), 0.5))
    reference = torch.distributions.Bernoulli(logits=p_x.base_dist.logits).log_prob(x).sum(-1)
    torch.testing.assert_close(p_x.log_prob(x), reference)
    torch.testing.assert_close(p_x.expand((50, 6)).log_prob(x), reference)


def test_predictive_from_prior_and_posterior(trio: tuple) -> None:
    model, guide, data = trio
    x = data.codewords
    prior = Predictive(poutine.uncondition(model), num_samples=50, parallel=True)(x)
    assert prior["x"].shape == (50, 2, 3)
    assert set(prior["x"].unique().tolist()) <= {0.0, 1.0}
    posterior = Predictive(poutine.uncondition(model), guide=guide, num_samples=50, parallel=True)(x)
    assert posterior["x"].shape == (50, 2, 3)
    assert posterior["z1"].shape == (50, 2, 1)


@pytest.mark.parametrize("layers", [1, 2])
def test_any_svi_of_pyro_trains_them(layers: int) -> None:
    # The default start has a saturated decoder, whose gradient may be exactly zero in one step.
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        model, guide, data = build(Config(ndims=3, layers=layers, preset="reference"))
        before = [[p.clone() for p in module.parameters()] for module in (model, guide)]
        elbo = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
        SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo).step(data.rows(10))
        for module, old in zip((model, guide), before, strict=True):
            assert all((new != value).any() for new, value in zip(module.parameters(), old, strict=True))


def test_two_instances_share_nothing() -> None:
    with pyro.get_param_store().scope():
        first, _, data = build(Config(ndims=3, seed=0))
        second = copy.deepcopy(first)
        for model in (first, second):
            poutine.trace(model).get_trace(data.codewords)
        store = pyro.get_param_store()
        assert len(list(store.keys())) == 2 * len(list(first.parameters()))


def test_reference_networks_are_the_originals() -> None:
    model, guide, _ = build(Config(ndims=10, layers=2, preset="reference"))
    assert REFERENCE.width_z == 100
    assert [tuple(p.shape) for p in guide.q_z1.net.parameters()][::2] == [(10, 10), (10, 10), (10, 10), (2, 10)]
    assert [tuple(p.shape) for p in model.p_z1.net.parameters()][::2] == [(100, 1), (100, 100), (100, 100), (2, 100)]
    assert [tuple(p.shape) for p in model.p_x.net.parameters()][::2] == [(10, 1), (10, 10), (10, 10), (10, 10)]


def test_a_learned_prior_comes_to_the_entropy() -> None:
    config = Config(ndims=5, model="learned_prior", seed=SEED)
    figures = fit(*build(config), config).metrics
    assert figures["optimum"] == figures["entropy"]
    assert 0.0 < figures["loss"] - figures["entropy"] < 0.002
    assert figures["mutual_information"] > 0.69
