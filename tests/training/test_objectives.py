import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from conftest import SEED
from pyro import poutine
from pyro.infer import EnergyDistance, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_onebit import Config, InputError, build, fit, register_objective
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.training import AnnealedELBO, BetaELBO, CompiledELBO, FreeBitsELBO, LatticeNoise


def gradient(name: str, layers: int, particles: int) -> torch.Tensor:
    model, guide, data = build(Config(ndims=3, layers=layers, preset="reference"))
    torch.manual_seed(0)
    with LatticeNoise(particles, data.probs, 1.5):
        OBJECTIVES[name](particles).loss_and_grads(model, guide, data.codewords)
    return torch.cat([p.grad.flatten() for p in [*model.parameters(), *guide.parameters()]])


@pytest.mark.parametrize("layers", [1, 2])
def test_sticking_the_landing_keeps_the_expected_gradient(layers: int) -> None:
    plain, stl = (gradient(name, layers, 20_000) for name in ("elbo", "stl"))
    assert float((plain - stl).norm() / plain.norm()) < 0.02


def test_sticking_the_landing_is_silent_at_the_exact_posterior() -> None:
    """A decoder that ignores z has the prior as its posterior; at that guide the gradient is zero."""
    largest = {}
    for name in OBJECTIVES:
        model, guide, data = build(Config(ndims=3, preset="reference"))
        with torch.no_grad():
            for p in [*guide.parameters(), *model.parameters()]:
                p.zero_()
            guide.q_z1.variance_biases.fill_(torch.tensor(1.0).expm1().log())  # softplus of it is 1
        torch.manual_seed(0)
        OBJECTIVES[name](64).loss_and_grads(model, guide, data.codewords)
        largest[name] = max(float(p.grad.abs().max()) for p in guide.parameters())
    assert largest["stl"] < 1e-5
    assert largest["elbo"] > 1e-2


def test_sticking_the_landing_leaves_the_parameters_trainable() -> None:
    model, guide, data = build(Config(ndims=3, layers=2))
    held = list(guide.parameters())
    OBJECTIVES["stl"](4).loss(model, guide, data.codewords)
    assert all(a is b and isinstance(a, nn.Parameter) for a, b in zip(held, guide.parameters(), strict=True))


SETTINGS: dict[str, Any] = {"num_particles": 16, "vectorize_particles": True, "max_plate_nesting": 1}


def loss_and_gradient(elbo: Any, model: Any, guide: Any, x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """At one noise; under `poutine.block` a model leaves its parameters without a gradient."""
    trained = [*guide.parameters()]
    for p in trained:
        p.grad = None
    torch.manual_seed(1)
    loss = elbo.loss_and_grads(model, guide, x)
    return loss, torch.cat([p.grad.flatten() for p in trained])


@pytest.mark.parametrize("layers", [1, 2])
def test_beta_multiplies_the_kl_terms(layers: int) -> None:
    model, guide, data = build(Config(ndims=3, layers=layers, preset="reference"))
    x = data.rows(6)
    plain, kl = (
        loss_and_gradient(Trace_ELBO(**SETTINGS), program, guide, x)
        for program in (model, poutine.block(model, hide=["x"]))
    )
    weighted = loss_and_gradient(BetaELBO(beta=3.0, **SETTINGS), model, guide, x)
    assert weighted[0] == pytest.approx(plain[0] + 2.0 * kl[0], rel=1e-5)
    torch.testing.assert_close(weighted[1], plain[1] + 2.0 * kl[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lattice", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_free_bits_are_free_below_and_cost_what_they_do_above(layers: int, lattice: bool) -> None:
    model, guide, data = build(Config(ndims=3, layers=layers, preset="reference"))
    # A step's weight is 1 on the lattice, and the number of rows elsewhere.
    x, count = (data.codewords, 1) if lattice else (data.rows(6), 6)
    noise: Any = LatticeNoise(16, data.probs, 1.5) if lattice else nullcontext()
    with noise:
        plain = loss_and_gradient(Trace_ELBO(**SETTINGS), model, guide, x)
    with noise:
        kl = loss_and_gradient(Trace_ELBO(**SETTINGS), poutine.block(model, hide=["x"]), guide, x)
    level = kl[0] / count
    with noise:
        above = loss_and_gradient(FreeBitsELBO(free=level - 0.01, **SETTINGS), model, guide, x)
    with noise:
        below = loss_and_gradient(FreeBitsELBO(free=level + 0.01, **SETTINGS), model, guide, x)
    assert above[0] == pytest.approx(plain[0], rel=1e-5)
    torch.testing.assert_close(above[1], plain[1])
    assert below[0] == pytest.approx(plain[0] + 0.01 * count, rel=1e-5)
    torch.testing.assert_close(below[1], plain[1] - kl[1], rtol=1e-4, atol=1e-4)


def test_a_recorded_step_follows_a_schedule() -> None:
    model, guide, data = build(Config(ndims=3, preset="reference", dtype="float64"))
    elbo = AnnealedELBO(warm_up=0.5, **SETTINGS)
    compiled = CompiledELBO(elbo, model, guide, data.codewords)
    kl_shares = []
    for step in (0, 10, 25, 50, 99):
        compiled.set_step(step, 100)
        torch.manual_seed(0)
        compiled(model, guide, data.codewords)
        kl_shares.append(compiled.terms["kl1"])
    assert [share / kl_shares[-1] for share in kl_shares] == pytest.approx([0.0, 0.2, 0.5, 1.0, 1.0])


class Kept:
    """A checkpoint in memory."""

    def __init__(self, at: int, state: dict[str, Any] | None = None) -> None:
        self.at, self.state, self.restored = at, None, state

    def restore(self) -> dict[str, Any] | None:
        return self.restored

    def restoring(self) -> Any:
        return nullcontext()

    def due(self) -> bool:
        self.at -= 1
        return self.at == 0

    def keep(self, state: dict[str, Any]) -> None:
        import copy

        self.state = self.state or copy.deepcopy(state)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "annealed"},
        {"schedule": "cosine"},
        {"objective": "stepwise"},
        {"optimizer": "SGD(momentum=0.9)", "lr": 1e-3},
    ],
)
def test_a_schedule_goes_on_where_a_training_was_left(changes: dict[str, str]) -> None:
    register_objective("stepwise")(Stepwise)
    config = Config(ndims=3, steps=20, seed=SEED, **changes)
    kept = Kept(8)
    whole = fit(*build(config), config, checkpoint=kept)
    assert kept.state is not None
    assert kept.state["step"] == 8
    resumed = fit(*build(config), config, checkpoint=Kept(10**6, kept.state))
    assert resumed.metrics["loss"] == whole.metrics["loss"]


class Stepwise(Trace_ELBO):
    """A loss of one's own, by the step; in plain Python."""

    share = 1.0

    def set_step(self, step: int, steps: int) -> None:
        self.share = (step + 1) / steps

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        with poutine.scale(scale=self.share):
            return super().loss_and_grads(model, guide, *args, **kwargs)


def parameters_after(objective: type, **changes: Any) -> torch.Tensor:
    register_objective("mine")(objective)
    config = Config(ndims=3, objective="mine", **{"steps": 3, "optimizer": "SGD", "lr": 1e-3, **changes})
    run = fit(*build(config), config)
    return torch.cat([p.detach().flatten() for p in (*run.model.parameters(), *run.guide.parameters())])


def test_an_overridden_loss_is_honoured() -> None:
    """Half of a loss, by gradient descent, is half of the learning rate; and none is no step at all."""

    class Nothing(Trace_ELBO):
        def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
            return 1.0

    class Half(Trace_ELBO):
        def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            return 0.5 * super().differentiable_loss(model, guide, *args, **kwargs)

    around = {"start": "analytic"}  # without a first stage, which is by the ELBO
    start = parameters_after(type("Start", (Nothing,), {}), steps=1, **around)
    assert torch.equal(parameters_after(type("Start", (Nothing,), {}), **around), start)
    clipped = {"steps": 1, "preset": "reference"}  # which clips no gradient
    full, half, none = (parameters_after(own, **clipped) for own in _renamed(Trace_ELBO, Half, Nothing))
    torch.testing.assert_close(half - none, 0.5 * (full - none), rtol=1e-3, atol=1e-6)


def _renamed(*objectives: type) -> list[type]:
    """Classes that a registry takes for one that is written again and again."""
    return [type("Start", (own,), {}) for own in objectives]


def test_what_cannot_be_honoured_is_refused() -> None:
    class Reported(Trace_ELBO):
        def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
            return 0.0

    class Overridden(Trace_ELBO):
        def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
            return 0.0

    class Failing(Trace_ELBO):
        def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
            raise RuntimeError("no gradient today")

    with pytest.raises(InputError, match="'mine' overrides loss alone, which Pyro only reports"):
        register_objective("mine")(Reported)
    with pytest.raises(InputError, match="'mine' has a loss of its own, which a recorded step would not see"):
        register_objective("mine", recorded=True)(Overridden)
    with pytest.raises(InputError, match="'mine' cannot be made: TypeError"):
        register_objective("mine")(EnergyDistance)
    with pytest.raises(InputError, match="'mine' makes a dict; it must make a Pyro ELBO"):
        register_objective("mine")(dict)
    register_objective("mine")(Failing)
    with pytest.raises(InputError, match="the objective, a Failing, fails: RuntimeError: no gradient today"):
        fit(*build(config := Config(ndims=3, objective="mine", steps=2)), config)


def test_pyros_analytic_kl_is_used() -> None:
    register_objective("mine")(TraceMeanField_ELBO)
    config = Config(ndims=3, objective="mine", steps=100, seed=SEED)
    run = fit(*build(config), config)
    assert math.isfinite(run.metrics["loss"])
    assert run.metrics["loss"] < 3 * run.data.entropy
