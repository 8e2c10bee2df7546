"""A dense network and the skips around it: what every conditional distribution is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Independent, Normal
from pyro.distributions.util import broadcast_shape
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_onebit.nn.architecture import Architecture, Start

#: Added to every variance, so that none can reach zero.
MIN_VARIANCE = 1e-8
#: Half the range of z1 over which the bends of a network between z1 and z2 are laid out, and their slope.
RANGE, _SLOPE = 5.0, 3.0
#: The softplus of this is 1.
UNIT_BIAS = 0.5413248546129181


class Network(nn.Module):
    """A dense network, and the skips around it as buffers: they are saved with the parameters.

    Skips are set by `reset_parameters`, as tensors of the shape of what they are given as.

    Arguments:
        input_dim: Dimensions of its input.
        width: Width of its hidden layers.
        param_dims: Dimensions of its outputs.
        arch: Depth, coordinates and start.
        prob: Probability that a bit of x is 1.
        context_dim: Dimensions of rows x that it is given beside its input; 0: none.
    """

    divisor: Tensor

    def __init__(
        self, input_dim: int, width: int, param_dims: list[int], arch: Architecture, prob: float, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.repeats = arch.repeats or (1,)
        # A row has few features that matter, and many particles share them.
        features = arch.width_x if context_dim else 0
        self._keep(divisor=_divisor(context_dim or input_dim, arch))
        self.context = nn.Linear(context_dim, features) if context_dim else None
        self.net = DenseNN(input_dim + features, [width] * arch.hidden_layers, param_dims, nonlinearity=nn.ELU())
        self.reset_parameters(arch.start, prob)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        if self.context is not None:
            self.context.reset_parameters()
            with torch.no_grad():
                self.context.weight.mul_(self.divisor)
        for layer in self.net.layers:
            layer.reset_parameters()
        with torch.no_grad():
            for values in self.net.layers[-1].parameters():
                values.mul_(start.head)

    def _outputs(self, c: Tensor, x: Tensor | None) -> Any:
        """What the network makes of its input ``(..., input_dim)`` and, if it is given any, rows ``(..., ndims)``."""
        if self.context is None or x is None:
            return self.net(c)
        features = self.context(x / self.divisor)
        shape = broadcast_shape(c.shape[:-1], features.shape[:-1])
        return self.net(torch.cat([c.expand(*shape, -1), features.expand(*shape, -1)], -1))

    def _set(self, **skips: float | Sequence[float]) -> None:
        for name, value in skips.items():
            self.register_buffer(name, torch.tensor(value))

    def _keep(self, **constants: Tensor) -> None:
        """Constants, which are not saved."""
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)


def _divisor(ndims: int, arch: Architecture) -> Tensor:
    """What each dimension of x is divided by: by how many repeat its bit, if they are averaged; ``(ndims,)``."""
    if not arch.average:
        return torch.ones(ndims)
    return torch.cat([torch.full((many,), float(many)) for many in arch.repeats or (ndims,)])


def normal(loc: Tensor, scale: Tensor) -> Independent:
    """A normal of event shape ``(1,)``."""
    return Normal(loc, scale).to_event(1)


def variance_of(raw: Tensor) -> Tensor:
    """A positive variance from a network's raw output."""
    return softplus(raw) + MIN_VARIANCE


@torch.no_grad()
def spread_bends(net: DenseNN) -> None:
    """Start the units of the first layer with their bends evenly over the range of z1.

    A network of one input learns a local correction as soon as one unit bends near it.
    """
    first = net.layers[0]
    units = len(first.bias)
    signed = _SLOPE * (0.5 + torch.rand(units)) * torch.where(torch.rand(units) < 0.5, -1.0, 1.0)
    bends = RANGE * (2.0 * (torch.arange(units) + torch.rand(units)) / units - 1.0)
    first.weight[:, 0] = signed
    first.bias.copy_(-signed * bends)
