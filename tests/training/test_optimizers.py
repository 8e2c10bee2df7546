import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn

from pyro_onebit.training import SOAP


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


def test_state_is_saved_and_restored() -> None:
    torch.manual_seed(0)
    start = torch.randn(2, 4, 4)
    straight = [nn.Parameter(p.clone()) for p in start]
    optimizer = SOAP(straight, lr=1e-2, betas=(0.9, 0.95))
    descend([optimizer], straight, 12)
    resumed = [nn.Parameter(p.detach().clone()) for p in straight]
    restored = SOAP(resumed, lr=1e-2, betas=(0.9, 0.95))
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(descend([optimizer], straight, 12), descend([restored], resumed, 12))
