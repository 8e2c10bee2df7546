"""torch: what is relied on where a step is recorded once and run without Python."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_onebit import Config, build, fit
from pyro_onebit.errors import NotCompilableError
from pyro_onebit.internals import record
from pyro_onebit.internals.graph import _TRACED

#: Where a graph runs otherwise; most machines have none.
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_forward_and_backward_are_recorded_and_parameters_are_seen_as_they_are(device: str) -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0], device=device))

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        loss = (weight * x).sin().sum()
        [gradient] = torch.autograd.grad(loss, weight)
        return loss, gradient

    graph = record(f, torch.zeros(2, device=device))
    for _ in range(2):
        x = torch.tensor([0.3, 0.7], device=device)
        with torch.no_grad():
            loss, gradient = graph(x)
        expected = f(x)
        assert float(loss) == pytest.approx(float(expected[0].detach()))
        torch.testing.assert_close(gradient, expected[1])
        with torch.no_grad():
            weight.mul_(3.0)


def test_noise_is_drawn_at_each_call() -> None:
    graph = record(lambda x: (x + torch.rand(3),), torch.zeros(3))
    torch.manual_seed(0)
    first, second = graph(torch.zeros(3))[0], graph(torch.zeros(3))[0]
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))
    assert torch.equal(second, torch.rand(3))


def test_graphs_of_one_form_are_traced_once() -> None:
    """Each with its own constants: torch frees nothing that it has traced."""

    def times(factor: Tensor, power: int = 1) -> Callable[[Tensor], tuple[Tensor, ...]]:
        return record(lambda x: ((factor * x).sum() ** power, factor), torch.zeros(2))

    x = torch.tensor([0.3, 0.7])
    factors = [torch.tensor([2.0, -1.0]), torch.tensor([3.0, 1.0])]
    graphs = [times(factor) for factor in factors]
    known = len(_TRACED)
    for factor, graph in zip(factors, graphs, strict=True):
        factor.mul_(5.0)
        product, own = graph(x)
        assert float(product) == pytest.approx(float(factor @ x))
        assert torch.equal(own, factor)
    times(torch.ones(2))
    assert len(_TRACED) == known
    assert float(times(torch.ones(2), power=2)(x)[0]) == pytest.approx(1.0)
    assert len(_TRACED) == known + bool(hasattr(torch.jit, "trace"))


def test_what_is_computed_twice_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for noise, and what is written into; results are tensors of their own."""
    monkeypatch.delattr(torch.jit, "trace")  # whose graphs do not tell
    weight = nn.Parameter(torch.ones(3))

    def twice(x: Tensor) -> tuple[Tensor, ...]:
        return x.exp() + x.exp().detach().neg() + torch.rand(3) - torch.rand(3), x.sin(), x.sin(), weight.detach()

    calls = [getattr(node.target, "__name__", "") for node in record(twice, torch.zeros(3)).graph.nodes]
    assert [calls.count(own) for own in ("exp", "rand", "sin")] == [1, 2, 2]
    *_, returned = record(twice, torch.zeros(3))(torch.zeros(3))
    assert returned is not weight

    def writes(x: Tensor) -> tuple[Tensor, ...]:
        return (x.exp().add_(1.0) + x.exp(),)

    assert torch.equal(record(writes, torch.zeros(3))(torch.zeros(3))[0], torch.full((3,), 3.0))


def test_without_torch_jit_a_training_is_the_same_to_the_last_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one layer, which comes first, and of two."""
    config = Config(ndims=3, layers=2, steps=20)
    by_jit = fit(*build(config), config)
    monkeypatch.delattr(torch.jit, "trace")
    in_python = fit(*build(config), config)
    assert by_jit.history == in_python.history
    for name, value in by_jit.guide.state_dict().items():
        assert torch.equal(value, in_python.guide.state_dict()[name])


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: (x * float(x.sum()),), "reads a tensor's value"),
        (lambda x: (x[x > 0],), "picks elements by a mask"),
        (lambda x: (x if x.sum() > 0 else -x,), "reads a tensor's value"),
    ],
)
def test_what_depends_on_values_is_refused(f, message: str) -> None:
    with pytest.raises(NotCompilableError, match=message):
        record(f, torch.ones(3))
