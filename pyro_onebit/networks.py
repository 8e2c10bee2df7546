"""Conditional distributions: each network's ``forward(c)`` returns a Distribution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro
import torch
from pyro.distributions import Bernoulli, Independent, Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform
from pyro.distributions.transforms.spline import ConditionedSpline
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus
from torch.overrides import TorchFunctionMode

from pyro_onebit.data import ideal_threshold
from pyro_onebit.families import NormalMixture, TruncatedNormal

__all__ = [
    "ONE_LAYER",
    "PLAIN",
    "REFERENCE",
    "TWO_LAYER",
    "Architecture",
    "BernoulliNet",
    "CodewordNet",
    "GaussianNet",
    "MixtureNet",
    "Program",
    "SplineNet",
    "Start",
    "StretchNet",
    "TruncatedNet",
    "frozen",
]

#: Added to every variance, so that none can reach zero.
MIN_VARIANCE = 1e-8
#: Half the range of z1 over which the bends of `Start.spread` are laid out.
_RANGE = 5.0
#: The least height of a spline's bin, as a share of all, and the least slope at its knots.
_FLAT = 1e-4
#: The softplus of this is 1.
_UNIT_BIAS = 0.5413248546129181


@dataclass(frozen=True)
class Start:
    r"""Where training starts: skips around the networks, which are what is learned.

    Arguments:
        separation: The means of q(z1|x) for the two codewords differ by twice this.
        centre: What lies halfway between those means: ``zero``; ``balanced``, where they average to 0 over
            the data, as an optimal Gaussian q(z1|x) does under a standard normal prior; ``threshold``, where
            an ideal latent is cut in two.
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
    centre: Literal["zero", "balanced", "threshold"] = "zero"
    slope: float = 0.0
    variance_bias: float = 0.0
    delta: float = 1.0
    skip: float = 0.0
    spread: float | None = None
    head: float = 1.0

    def means(self, prob: float) -> tuple[float, float]:
        """Where the means of q(z1|x) start, for codewords 0 and 1."""
        centres = {"zero": 0.0, "balanced": self.separation * (1.0 - 2.0 * prob), "threshold": ideal_threshold(prob)}
        centre = centres[self.centre]
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
ONE_LAYER = Architecture(average=True, start=Start(separation=1.0, centre="balanced", slope=20.0, variance_bias=-2.4))
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


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, the module computes with detached parameters (`functional_call` refuses to be traced)."""
    held = [(child, dict(child._parameters)) for child in module.modules()]
    for child, parameters in held:
        child._parameters.update({name: p.detach() for name, p in parameters.items() if p is not None})  # type: ignore[misc]
    try:
        yield
    finally:
        for child, parameters in held:
            child._parameters.update(parameters)


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

    def _set(self, **skips: float | list[float]) -> None:
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
        return _variance(raw + self.variance_bias)


def _variance(raw: Tensor) -> Tensor:
    return softplus(raw) + MIN_VARIANCE


class _RowNet(_Network):
    """q(z1|x) of some family given rows x ``(..., ndims)``, which starts around a place of its codeword's."""

    low: Tensor
    high: Tensor
    variance_bias: Tensor

    def __init__(self, ndims: int, param_dims: list[int], arch: Architecture, prob: float) -> None:
        self.divisor = ndims if arch.average else 1
        super().__init__(ndims, arch.width_x, param_dims, arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        low, high = start.means(prob)
        self._set(variance_bias=start.variance_bias, low=low, high=high)
        with torch.no_grad():
            self.net.layers[0].weight.mul_(self.divisor)

    def _start(self, c: Tensor) -> Tensor:
        return torch.lerp(self.low, self.high, c.mean(-1, keepdim=True))


class CodewordNet(_RowNet):
    """A Gaussian."""

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(ndims, [1, 1], arch, prob)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        mean, raw = self.net(c / self.divisor)
        return _normal(self._start(c) + mean, _variance(raw + self.variance_bias).sqrt())


class MixtureNet(_RowNet):
    """A mixture of Gaussians, which start closer and closer to the decoder's threshold, and narrower and lighter.

    Component k starts at 2^-k times the first one's distance from the middle between the codewords, with 2^-k
    times its width and weight: as a row of them fills a density that is cut off there.
    """

    shrink: Tensor

    def __init__(self, ndims: int, components: int, arch: Architecture, prob: float) -> None:
        self.components = components
        super().__init__(ndims, [components] * 3, arch, prob)

    def begin(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().begin(start, prob)
        self._set(shrink=[0.5**k if start.separation else 1.0 for k in range(self.components)])

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        logits, mean, raw = self.net(c / self.divisor)
        centre = 0.5 * (self.low + self.high)
        loc = centre + self.shrink * (self._start(c) - centre + mean)
        scale = self.shrink * _variance(raw + self.variance_bias).sqrt()
        # The event dimension stands before the components'.
        parts = (part[..., None, :] for part in (logits + self.shrink.log(), loc, scale))
        return NormalMixture(*parts).to_event(1)


class SplineNet(_RowNet):
    """A standard normal through a monotone rational spline, then shifted and scaled; all given x.

    Linear rational splines (Dolatabadi, Erfani and Leckie 2020), whose inverse needs no root.
    """

    def __init__(self, ndims: int, bins: int, arch: Architecture, prob: float) -> None:
        super().__init__(ndims, [bins, bins, bins - 1, bins, 1, 1], arch, prob)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        *raws, mean, raw = self.net(c / self.divisor)
        widths, heights, slopes, middles = (part[..., None, :] for part in raws)
        # With raw values of 0 the spline is the identity.
        knots = (widths.softmax(-1), heights.softmax(-1), softplus(slopes + _UNIT_BIAS), middles.sigmoid())
        spline = _Increasing([part.double() for part in knots], bound=_RANGE + 1.0, order="linear")
        scale = _variance(raw + self.variance_bias).sqrt()
        affine = AffineTransform(self._start(c) + mean, scale)
        base = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        return TransformedDistribution(base, [spline, affine]).to_event(1)


class _Increasing(ConditionedSpline):
    """Pyro's spline, saying that it increases, as a distribution function needs to know, and in fixed shapes."""

    sign = 1

    def spline_op(self, x: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The spline or its inverse at x, and its log derivative."""
        with _WhereForMasks():
            # What it has for least heights and slopes is more than a posterior's cut leaves room for; with less,
            # single precision does not do.
            y, log_slope = super().spline_op(x.double(), min_bin_height=_FLAT, min_derivative=_FLAT, **kwargs)
        return y.to(x.dtype), log_slope.to(x.dtype)


class _WhereForMasks(TorchFunctionMode):
    """Lets ``a[mask] = b[mask]`` choose elementwise, so that no shape hangs on values and a step can be compiled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and getattr(args[1], "dtype", None) == torch.bool:
            if func is Tensor.__getitem__:
                return args[0]
            return args[0].copy_(torch.where(args[1], args[2], args[0]))
        return func(*args, **(kwargs or {}))


class TruncatedNet(_RowNet):
    """A Gaussian cut off at a learned threshold, above which it lies for rows with more ones than zeros.

    It starts as the prior, cut off at its codeword's place.
    """

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(ndims, [1, 1, 1], arch, prob)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        mean, raw, threshold = self.net(c / self.divisor)
        scale = _variance(raw + _UNIT_BIAS).sqrt()
        side = torch.where(c.mean(-1, keepdim=True) > 0.5, 1.0, -1.0).to(mean.dtype)
        return TruncatedNormal(mean, scale, self._start(c) + threshold, side).to_event(1)


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
