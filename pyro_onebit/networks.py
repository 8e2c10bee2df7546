"""Conditional distributions: each network's ``forward(c)`` returns a Distribution."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.distributions import Bernoulli, Independent, Normal
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyro_onebit.data import ideal_threshold

__all__ = [
    "ONE_LAYER",
    "PLAIN",
    "REFERENCE",
    "TWO_LAYER",
    "Architecture",
    "BernoulliNet",
    "CodewordNet",
    "GaussianNet",
    "Program",
    "Start",
    "StretchNet",
]

#: Added to every variance, so that none can reach zero.
MIN_VARIANCE = 1e-8
#: Half the range of z1 over which the bends of `Start.spread` are laid out.
_RANGE = 5.0


@dataclass(frozen=True)
class Start:
    r"""Where training starts: skips around the networks, which are what is learned.

    Arguments:
        separation: The means of q(z1|x) for the two codewords differ by twice this.
        balanced: Whether those means average to 0 over the data, as an optimal q(z1|x) does under a
            standard normal prior, rather than lie at minus and plus `separation`.
        slope: Slope of the logits of p(x|z1) in z1; they are zero between the two means.
        variance_bias: Added to the input of every variance's softplus.
        delta: Width around the threshold of z2 inside which it is seen linearly (`StretchNet`).
        skip: Slope of the skips between z1 and the stretched z2 (`StretchNet`).
        spread: Slope of the first hidden layer between z1 and z2, whose units start with their
            bends evenly over the latents' range: a network of one input learns a local correction
            as soon as one unit bends near it. None: the library's initial weights.
        head: What the initial weights of the linear heads between z1 and z2 are multiplied by.
    """

    separation: float = 0.0
    balanced: bool = False
    slope: float = 0.0
    variance_bias: float = 0.0
    delta: float = 1.0
    skip: float = 0.0
    spread: float | None = None
    head: float = 1.0

    def means(self, prob: float) -> tuple[float, float]:
        """Where the means of q(z1|x) start, for codewords 0 and 1."""
        centre = self.separation * (1.0 - 2.0 * prob) if self.balanced else 0.0
        return centre - self.separation, centre + self.separation


#: No skips: the original's start, in which the latents carry nothing yet.
PLAIN = Start()


@dataclass(frozen=True)
class Architecture:
    """The networks' sizes and coordinates, and where training starts.

    Arguments:
        width_x: Width of the hidden layers between x and z1.
        width_z: Width of the hidden layers between z1 and z2.
        hidden_layers: Number of hidden ELU layers of each network.
        average: Whether x enters q(z1|x) divided by ndims, and the weights on it start multiplied by
            ndims. That changes no initial value, but the speed of learning: Adam moves each weight
            by the learning rate, and where ndims inputs are equal, their sum by ndims times that.
        stretch: Whether the networks between z1 and z2 see z2 on a logarithmic scale.
        start: The skips and initial weights.
    """

    width_x: int = 10
    width_z: int = 100
    hidden_layers: int = 3
    average: bool = False
    stretch: bool = False
    start: Start = field(default=PLAIN)


REFERENCE = Architecture()
ONE_LAYER = Architecture(average=True, start=Start(separation=1.0, balanced=True, slope=20.0, variance_bias=-2.4))
TWO_LAYER = Architecture(
    width_z=48,
    average=True,
    stretch=True,
    start=Start(separation=3.0, slope=20.0, variance_bias=-1.0, delta=0.002, skip=1.0, spread=3.0, head=0.5),
)

_instances = itertools.count()


class Program(nn.Module):
    """A module whose parameters enter Pyro's store under a name that no other instance shares.

    Pyro identifies parameters by name, so two models of one class would share, or silently stop
    training, each other's parameters. Every instance, copies included, gets a name of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._store_name = self._new_name()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(dict(state))
        self._store_name = self._new_name()

    def _new_name(self) -> str:
        return f"{type(self).__name__}-{next(_instances)}"

    def register(self) -> None:
        """Announce the parameters to Pyro, unless they are frozen; called first in each run of the program."""
        if any(p.requires_grad for p in self.parameters()):
            pyro.module(self._store_name, self)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips, here and in every network within."""
        for module in self.modules():
            if isinstance(module, _Network):
                module.begin(start, prob)


class _Network(nn.Module):
    """A dense network, and the skips around it as buffers: they are saved with the parameters.

    Skips are set by `begin`, as tensors of shape ``()``.
    """

    def __init__(self, input_dim: int, width: int, param_dims: list[int], arch: Architecture, prob: float) -> None:
        super().__init__()
        self.net = DenseNN(input_dim, [width] * arch.hidden_layers, param_dims, nonlinearity=nn.ELU())
        self.begin(arch.start, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        for layer in self.net.layers:
            layer.reset_parameters()

    def _set(self, **skips: float) -> None:
        for name, value in skips.items():
            self.register_buffer(name, torch.tensor(value))


def _normal(loc: Tensor, scale: Tensor) -> Independent:
    return Normal(loc, scale).to_event(1)


class GaussianNet(_Network):
    """A Gaussian with mean and variance from a network: c ``(..., input_dim)`` to event ``(1,)``."""

    variance_bias: Tensor

    def __init__(self, input_dim: int, width: int, arch: Architecture, prob: float) -> None:
        super().__init__(input_dim, width, [1, 1], arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        self._set(variance_bias=start.variance_bias)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given c."""
        mean, raw = self.net(c)
        return _normal(mean, self._variance(raw).sqrt())

    def _variance(self, raw: Tensor) -> Tensor:
        return softplus(raw + self.variance_bias) + MIN_VARIANCE


class CodewordNet(GaussianNet):
    """q(z1|x): a Gaussian given rows x ``(..., ndims)``, whose mean starts at its codeword's."""

    low: Tensor
    high: Tensor

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        self.divisor = ndims if arch.average else 1
        super().__init__(ndims, arch.width_x, arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        low, high = start.means(prob)
        self._set(low=low, high=high)
        with torch.no_grad():
            self.net.layers[0].weight.mul_(self.divisor)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        mean, raw = self.net(c / self.divisor)
        around = torch.lerp(self.low, self.high, c.mean(-1, keepdim=True))
        return _normal(around + mean, self._variance(raw).sqrt())


class StretchNet(GaussianNet):
    r"""p(z1|z2) and q(z2|z1) in the coordinate in which both are nearly the identity.

    An ideal z2 puts the codewords on either side of a threshold t, and the wide gap between the
    modes of z1 onto a sliver around it. In :math:`a = \operatorname{asinh}((z_2 - t)/\delta)` the
    standard normal is bimodal like q(z1), and the map between the two is smooth.

    `down`: :math:`z_1 \mid z_2 \sim N(s\,a/2 + m(a/2),\, v(a/2))`, s the skip's slope.
    Otherwise :math:`z_2 \mid z_1 \sim N(t + \delta \sinh\alpha,\, (\delta \cosh(\alpha)\,\beta)^2)`
    with :math:`\alpha = 2 s z_1 + m(z_1)` and :math:`\beta = \operatorname{softplus}(\cdot)`.

    Arguments:
        arch: Sizes and start.
        prob: Probability of codeword 1, which lies above the threshold.
        down: Whether from z2 to z1.
    """

    delta: Tensor
    gain: Tensor
    threshold: Tensor

    def __init__(self, arch: Architecture, prob: float, *, down: bool) -> None:
        self.down = down
        super().__init__(1, arch.width_z, arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        self._set(delta=start.delta, gain=2.0 * start.skip, threshold=ideal_threshold(prob))
        if start.spread is not None:
            _spread_bends(self.net, start.spread, start.head)

    def forward(self, c: Tensor) -> Independent:
        """The conditional of one of z1 and z2 given the other, c of shape ``(..., 1)``."""
        if self.down:
            a = 0.5 * torch.asinh((c - self.threshold) / self.delta)
            mean, raw = self.net(a)
            return _normal(0.5 * self.gain * a + mean, self._variance(raw).sqrt())
        mean, raw = self.net(c)
        alpha = self.gain * c + mean
        return _normal(
            self.threshold + self.delta * torch.sinh(alpha), self.delta * torch.cosh(alpha) * self._variance(raw)
        )


class BinaryBernoulli(Bernoulli):
    """`Bernoulli` whose log_prob takes zeros and ones only.

    For those it is log sigmoid of plus or minus the logits: half the passes over memory of the
    binary cross entropy that also takes values between, and at many dimensions memory is the time.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of the batch shape."""
        return logsigmoid((2.0 * value - 1.0) * self.logits)


class BernoulliNet(_Network):
    """p(x|z1): independent Bernoulli dimensions given z1 ``(..., 1)``, event ``(ndims,)``."""

    slope: Tensor
    centre: Tensor

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(1, arch.width_x, [ndims], arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        self._set(slope=start.slope, centre=0.5 * sum(start.means(prob)))

    def forward(self, c: Tensor) -> Independent:
        """The conditional given z1."""
        return BinaryBernoulli(logits=self.net(c) + self.slope * (c - self.centre)).to_event(1)


@torch.no_grad()
def _spread_bends(net: DenseNN, slope: float, head: float) -> None:
    first, last = net.layers[0], net.layers[-1]
    units = len(first.bias)
    signed = slope * (0.5 + torch.rand(units)) * torch.where(torch.rand(units) < 0.5, -1.0, 1.0)
    bends = _RANGE * (2.0 * (torch.arange(units) + torch.rand(units)) / units - 1.0)
    first.weight.copy_(signed[:, None])
    first.bias.copy_(-signed * bends)
    last.weight.mul_(head)
    last.bias.mul_(head)
