from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_onebit import Config, build, exact
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.training import CompiledELBO, LatticeNoise


def gradients(model: nn.Module, guide: nn.Module) -> Tensor:
    parameters = [*model.parameters(), *guide.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


RECORDED = [name for name, known in OBJECTIVES.items() if known.recorded]


@pytest.mark.parametrize(("preset", "lattice"), [("default", True), ("reference", False)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("objective", RECORDED)
def test_loss_and_gradient_are_the_objectives(objective: str, layers: int, preset: Any, lattice: bool) -> None:
    model, guide, data = build(Config(ndims=3, layers=layers, prob=0.3, preset=preset))
    elbo = OBJECTIVES[objective](16)
    noise: Any = LatticeNoise(16, data.probs, 1.5) if lattice else nullcontext()
    x = data.codewords
    with noise:
        compiled = CompiledELBO(elbo, model, guide, x)
    for _ in range(2):  # the second call's gradients replace the first's
        torch.manual_seed(3)
        loss = compiled(model, guide, x)
    mine = gradients(model, guide)
    model.zero_grad()
    guide.zero_grad()
    torch.manual_seed(3)
    with noise:
        assert loss == pytest.approx(elbo.loss_and_grads(model, guide, x), rel=1e-5)
    theirs = gradients(model, guide)
    assert float((mine - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("objective", RECORDED)
def test_unseen_particles_take_part_in_the_kl_terms_alone(objective: str) -> None:
    model, guide, data = build(Config(ndims=3, layers=2, prob=0.3))
    x, share = data.codewords, 8 / 32
    seen, rest = OBJECTIVES[objective](8), OBJECTIVES[objective](24)
    noise, elsewhere = LatticeNoise(8, data.probs, 1.5), LatticeNoise(24, data.probs, 1.5)
    compiled = CompiledELBO(seen, model, guide, x, None, noise, (rest, elsewhere))
    torch.manual_seed(3)
    loss = compiled(model, guide, x)
    mine = gradients(model, guide)
    kl_only = poutine.block(model, hide=["x"])

    def by_pyro(elbo: Any, handler: Any, program: Any) -> tuple[float, Tensor]:
        model.zero_grad()
        guide.zero_grad()
        with handler:
            value = elbo.loss_and_grads(program, guide, x)
        return value, gradients(model, guide)

    torch.manual_seed(3)
    kl_loss, kl = by_pyro(seen, noise, kl_only)
    torch.manual_seed(3)
    whole_loss, whole = by_pyro(seen, noise, model)
    more_loss, more = by_pyro(rest, elsewhere, kl_only)  # draws on from there
    assert loss == pytest.approx(whole_loss + (1 - share) * (more_loss - kl_loss), rel=1e-5)
    theirs = whole + (1 - share) * (more - kl)
    assert float((mine - theirs).norm() / theirs.norm()) < 1e-4


def test_terms_are_the_exact_ones() -> None:
    model, guide, data = build(Config(ndims=5, layers=2, prob=0.2, preset="reference"))
    figures = exact.evaluate(model, guide, data)
    torch.manual_seed(0)
    with LatticeNoise(8192, data.probs, 1.5):
        compiled = CompiledELBO(OBJECTIVES["elbo"](8192), model, guide, data.codewords)
    loss = compiled(model, guide, data.codewords)
    assert loss == pytest.approx(sum(compiled.terms.values()))
    for name, value in compiled.terms.items():
        assert value == pytest.approx(figures[name], rel=1e-2, abs=2e-3)


def test_a_parameter_that_is_not_used_has_gradient_zero() -> None:
    model, guide, data = build(Config(ndims=3))
    guide.unused = nn.Parameter(torch.ones(2))
    CompiledELBO(OBJECTIVES["elbo"](4), model, guide, data.codewords)(model, guide, data.codewords)
    assert guide.unused.grad.tolist() == [0.0, 0.0]


def test_the_generator_is_left_as_it_was() -> None:
    model, guide, data = build(Config(ndims=3))
    before = torch.get_rng_state()
    CompiledELBO(OBJECTIVES["elbo"](4), model, guide, data.codewords)
    assert torch.equal(before, torch.get_rng_state())
