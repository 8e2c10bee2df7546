"""A dense network and the skips around it: what every conditional distribution is made from."""

from __future__ import annotations

import torch
from pyro.distributions import Independent, Normal
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_onebit.nn.architecture import Architecture, Start

#: Added to every variance, so that none can reach zero.
MIN_VARIANCE = 1e-8
#: Half the range of z1 over which the bends of `Start.spread` are laid out.
RANGE = 5.0
#: The softplus of this is 1.
UNIT_BIAS = 0.5413248546129181


class Network(nn.Module):
    """A dense network, and the skips around it as buffers: they are saved with the parameters.

    Skips are set by `reset_parameters`, as tensors of shape ``()``.
    """

    def __init__(self, input_dim: int, width: int, param_dims: list[int], arch: Architecture, prob: float) -> None:
        super().__init__()
        self.net = DenseNN(input_dim, [width] * arch.hidden_layers, param_dims, nonlinearity=nn.ELU())
        self.reset_parameters(arch.start, prob)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        for layer in self.net.layers:
            layer.reset_parameters()

    def _set(self, **skips: float | list[float]) -> None:
        for name, value in skips.items():
            self.register_buffer(name, torch.tensor(value))


def normal(loc: Tensor, scale: Tensor) -> Independent:
    """A normal of event shape ``(1,)``."""
    return Normal(loc, scale).to_event(1)


def variance_of(raw: Tensor) -> Tensor:
    """A positive variance from a network's raw output."""
    return softplus(raw) + MIN_VARIANCE


@torch.no_grad()
def spread_bends(net: DenseNN, slope: float, head: float) -> None:
    """Start the units of the first layer with their bends evenly over the latents' range (`Start.spread`)."""
    first, last = net.layers[0], net.layers[-1]
    units = len(first.bias)
    signed = slope * (0.5 + torch.rand(units)) * torch.where(torch.rand(units) < 0.5, -1.0, 1.0)
    bends = RANGE * (2.0 * (torch.arange(units) + torch.rand(units)) / units - 1.0)
    first.weight.copy_(signed[:, None])
    first.bias.copy_(-signed * bends)
    last.weight.mul_(head)
    last.bias.mul_(head)
