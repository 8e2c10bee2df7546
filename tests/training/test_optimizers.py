from dataclasses import replace

import pytest
import pytorch_optimizer
import torch
from torch import nn

from pyro_onebit import Config, InputError, build, fit
from pyro_onebit.training import SOAP, OneOptimizer


def descend(optimizers: list[torch.optim.Optimizer], params: list[nn.Parameter], steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            # A gradient of low rank, with noise: what the bases are for.
            p.grad = p.detach() @ torch.diag(torch.logspace(0, -3, p.shape[1], dtype=p.dtype))
            p.grad += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for optimizer in optimizers:
            optimizer.step()
    return torch.stack([p.detach() for p in params])


@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
@pytest.mark.parametrize("steps", [1, 2, 11, 60])
def test_equals_the_library(shape: tuple[int, int], steps: int) -> None:
    torch.manual_seed(0)
    start = torch.randn(3, *shape, dtype=torch.float64)
    mine, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    a = descend([SOAP(mine, lr=1e-2, betas=(0.9, 0.95))], mine, steps)
    library = pytorch_optimizer.SOAP(theirs, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    b = descend([library], theirs, steps)
    # The library's QR is in single precision.
    assert float((a - b).abs().max()) < (1e-9 if steps < 11 else 1e-5)


def test_matrices_of_several_shapes_are_stepped_as_if_each_shape_were_alone() -> None:
    torch.manual_seed(0)
    wide, square = [torch.randn(5, 8) for _ in range(2)], [torch.randn(4, 4)]
    apart = [[nn.Parameter(p.clone()) for p in own] for own in (wide, square)]
    mixed = [nn.Parameter(p.clone()) for p in (wide[0], *square, wide[1])]
    optimizers = [SOAP(own, lr=1e-2, betas=(0.9, 0.95)) for own in apart]
    together = SOAP(mixed, lr=1e-2, betas=(0.9, 0.95))
    for step in range(12):
        torch.manual_seed(step)
        for p in (q for own in apart for q in own):
            p.grad = torch.randn(p.shape)
        for p, own in zip(mixed, (apart[0][0], apart[1][0], apart[0][1]), strict=True):
            p.grad = own.grad
        for optimizer in (*optimizers, together):
            optimizer.step()
    assert torch.equal(mixed[0], apart[0][0])
    assert torch.equal(mixed[1], apart[1][0])
    assert torch.equal(mixed[2], apart[0][1])


def test_networks_of_any_shape_are_trained() -> None:
    config = Config(ndims=3, layers=2, guide="two_layer_skip", width_z=20, width_x=13, hidden_layers=2, steps=4)
    run = fit(*build(config), config)
    shapes = {tuple(p.shape) for p in run.guide.q_z2.net.parameters()}
    assert {(20, 14), (20, 20), (2, 20)} <= shapes


@pytest.mark.parametrize("optimizer", ["AdamW(weight_decay=0.1)", "SGD(momentum=0.9)", "ClippedAdam", "Rprop"])
def test_any_optimizer_of_torch_or_pyro_trains(optimizer: str) -> None:
    config = Config(ndims=3, preset="reference", optimizer=optimizer, lr=1e-3, steps=30)
    model, guide, data = build(config)
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    run = fit(model, guide, data, config)
    assert all((p != old).any() for p, old in zip((*model.parameters(), *guide.parameters()), before, strict=True))
    assert run.history["loss"][-1] < run.history["loss"][0]


@pytest.mark.parametrize(
    "optimizer", ["LBFGS", "SparseAdam", "nope", "SGD(momentun=0.9)", "SGD(0.9)", "__import__('os').getcwd()", ""]
)
def test_what_is_no_optimizer_is_refused(optimizer: str) -> None:
    with pytest.raises(InputError, match=r"optimizer is .*; it must be one of torch\.optim or pyro\.optim"):
        Config(optimizer=optimizer)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("exponential", [1e-2, 1e-2**0.5 * 1e-4**0.5, 1e-4]),
        ("linear", [1e-2, 0.5 * (1e-2 + 1e-4), 1e-4]),
        ("cosine", [1e-2, 0.5 * (1e-2 + 1e-4), 1e-4]),
        ("constant", [1e-2, 1e-2, 1e-2]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    recipe = replace(Config(schedule=schedule, steps=10, lr=1e-2).recipe, lr_final=1e-4)
    [weight] = parameters = [nn.Parameter(torch.ones(2))]
    weight.grad = torch.ones(2)
    optimizer, rates = OneOptimizer(parameters, recipe), []
    for _ in range(11):
        rates.append(optimizer.lr)
        optimizer(None)
    assert rates[::5] == pytest.approx(expected)
