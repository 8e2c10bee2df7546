import pytest
import torch
from torch import nn

from pyro_onebit import Config, build
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.training import LatticeNoise


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
            guide.q_z1.variance_bias.fill_(torch.tensor(1.0).expm1().log())  # softplus of it is 1
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
