"""q(z1|x) of several families, and a mixture as its prior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import Independent, Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform
from torch import Tensor
from torch.nn.functional import softplus

from pyro_onebit.data import words_of
from pyro_onebit.distributions import IncreasingSpline, NormalMixture, TruncatedNormal
from pyro_onebit.nn.architecture import Architecture, Start
from pyro_onebit.nn.network import RANGE, UNIT_BIAS, Network, normal, variance_of


class RowNet(Network):
    """q(z1|x) of some family given rows x ``(..., ndims)``, which starts around a place of its codeword's."""

    places: Tensor
    variance_biases: Tensor
    words: Tensor

    def __init__(self, ndims: int, param_dims: list[int], arch: Architecture, prob: float) -> None:
        super().__init__(ndims, arch.width_x, param_dims, arch, prob)
        self.blocks = arch.repeats or (ndims,)
        self._keep(words=torch.tensor(words_of(len(self.blocks)), dtype=torch.get_default_dtype()))

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        self._set(places=start.means(prob, self.repeats), variance_biases=_biases(start.scales(prob, self.repeats)))
        with torch.no_grad():
            self.net.layers[0].weight.mul_(self.divisor)

    def _of_word(self, values: Tensor, c: Tensor) -> Tensor:
        """Each codeword's value at rows of its own; at others what lies between, linear in the mean of each bit."""
        means = torch.cat([block.mean(-1, keepdim=True) for block in c.split(self.blocks, -1)], -1)[..., None, :]
        shares = (self.words * means + (1.0 - self.words) * (1.0 - means)).prod(-1)
        return (shares * values).sum(-1, keepdim=True)

    def _start(self, c: Tensor) -> Tensor:
        return self._of_word(self.places, c)

    def _scale(self, c: Tensor, raw: Tensor) -> Tensor:
        return variance_of(raw + self._of_word(self.variance_biases, c)).sqrt()


def _biases(scales: Sequence[float]) -> list[float]:
    """What is added to the inputs of the variances' softplus."""
    return [math.log(math.expm1(scale**2)) for scale in scales]


class CodewordNet(RowNet):
    """A Gaussian."""

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(ndims, [1, 1], arch, prob)

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        mean, raw = self.net(c / self.divisor)
        return normal(self._start(c) + mean, self._scale(c, raw))


class MixtureNet(RowNet):
    """A mixture of Gaussians, which start closer and closer to the decoder's threshold, and narrower and lighter.

    Component k starts at 2^-k times the first one's distance from the middle between its codeword's mean and that of
    the next one inwards, with 2^-k times its width and weight: as a row of them fills a density that is cut off there.
    """

    shrink: Tensor
    neighbours: Tensor

    def __init__(self, ndims: int, components: int, arch: Architecture, prob: float) -> None:
        self.components = components
        super().__init__(ndims, [components] * 3, arch, prob)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        order = self.places.argsort(stable=True)
        half = len(order) // 2
        inwards = torch.cat([order[1 : half + 1], order[half - 1 : -1]])
        self.register_buffer("neighbours", torch.empty_like(self.places).scatter(0, order, self.places[inwards]))
        self._set(shrink=[0.5**k if start.holds_the_bit else 1.0 for k in range(self.components)])

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        logits, mean, raw = self.net(c / self.divisor)
        centre = 0.5 * (self._start(c) + self._of_word(self.neighbours, c))
        loc = centre + self.shrink * (self._start(c) - centre + mean)
        scale = self.shrink * self._scale(c, raw)
        # The event dimension stands before the components'.
        parts = (part[..., None, :] for part in (logits + self.shrink.log(), loc, scale))
        return NormalMixture(*parts).to_event(1)


class MixturePriorNet(Network):
    """A mixture of Gaussians, one for each codeword, that depends on nothing; it starts as the mixture of q(z1|x).

    Its numbers are a network's outputs, since those move faster under Adam than parameters of their own.
    """

    means: Tensor
    variance_biases: Tensor

    def __init__(self, arch: Architecture, prob: float) -> None:
        super().__init__(1, arch.width_x, [2 ** max(1, len(arch.repeats))] * 3, arch, prob)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        self._set(variance_biases=_biases(start.scales(prob, self.repeats)), means=start.means(prob, self.repeats))

    def forward(self, like: Tensor) -> Independent:
        """The prior of event shape ``(1,)``, of the dtype and device of `like`."""
        logits, mean, raw = self.net(like.new_ones(1, 1))
        return NormalMixture(logits, self.means + mean, variance_of(raw + self.variance_biases).sqrt()).to_event(1)


class SplineNet(RowNet):
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
        knots = (widths.softmax(-1), heights.softmax(-1), softplus(slopes + UNIT_BIAS), middles.sigmoid())
        spline = IncreasingSpline([part.double() for part in knots], bound=RANGE + 1.0, order="linear")
        affine = AffineTransform(self._start(c) + mean, self._scale(c, raw))
        base = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        return TransformedDistribution(base, [spline, affine]).to_event(1)


class TruncatedNet(RowNet):
    """A Gaussian restricted to an interval, between learned thresholds; those of the outermost codewords have one.

    It starts as the prior, restricted to its codeword's own interval: in the order of the Gray code, in which those
    lie above the middle whose heaviest bit is 1.
    """

    widths: Tensor

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(ndims, [1, 1, 1, *([1] if arch.repeats else [])], arch, prob)
        self.heaviest = max(range(len(self.repeats)), key=lambda j: self.repeats[j])

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        if len(self.repeats) > 1:
            self._set(widths=start.widths(prob, self.repeats))

    def forward(self, c: Tensor) -> Independent:
        """The conditional given rows c."""
        mean, raw, threshold, *width = self.net(c / self.divisor)
        scale = variance_of(raw + UNIT_BIAS).sqrt()
        heaviest = c.split(self.blocks, -1)[self.heaviest]
        side = torch.where(heaviest.mean(-1, keepdim=True) > 0.5, 1.0, -1.0).to(mean.dtype)
        bound = self._start(c) + threshold
        # Whatever the weights, an interval ends beyond where it begins.
        ends = [bound + side * self._of_word(self.widths, c) * softplus(own + UNIT_BIAS) for own in width]
        return TruncatedNormal(mean, scale, bound, side, *ends).to_event(1)
