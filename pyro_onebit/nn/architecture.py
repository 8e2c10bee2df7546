"""The networks' sizes and coordinates, and where training starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from scipy.special import ndtri

from pyro_onebit.data import ideal_threshold
from pyro_onebit.errors import InputError

#: Networks larger than these are no use to one or two scalar latents, and a file that asks for them is forged.
_WIDEST, _DEEPEST = 4096, 64


@dataclass(frozen=True)
class Start:
    r"""Where training starts: skips around the networks, which are what is learned.

    Either the means and standard deviations of q(z1|x) are given for each codeword; then the logits of p(x|z1) start
    as the log-odds of the responsibilities q(x|z1), which is the best decoder of that guide. Or a start is planted.

    Arguments:
        separation: Planted, the means of q(z1|x) for the two codewords differ by twice this.
        centre: What lies halfway between those means: ``zero``; ``balanced``, where they average to 0 over
            the data, as an optimal Gaussian q(z1|x) does under a standard normal prior; ``threshold``, where
            an ideal latent is cut in two.
        slope: Slope of the planted logits in z1; they are zero between the two means.
        variance_bias: Added to the input of every planted variance's softplus.
        loc: The means of q(z1|x), for codewords 0 and 1, in place of what is planted.
        scale: Its standard deviations.
        beta: Standard deviations of p(z1|z2), and of q(z2|z1) as seen from z1 (`TransportNet`), in units of those of
            q(z1|x).
        head: What the initial weights of the networks' linear heads are multiplied by.
    """

    separation: float = 0.0
    centre: Literal["zero", "balanced", "threshold"] = "zero"
    slope: float = 0.0
    variance_bias: float = 0.0
    loc: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    beta: float = 1.0
    head: float = 1.0

    def means(self, prob: float) -> tuple[float, ...]:
        """Where the means of q(z1|x) start, for codewords 0 and 1."""
        if self.loc:
            return self.loc
        centres = {"zero": 0.0, "balanced": self.separation * (1.0 - 2.0 * prob), "threshold": ideal_threshold(prob)}
        centre = centres[self.centre]
        return centre - self.separation, centre + self.separation

    def scales(self) -> tuple[float, ...]:
        """Where the standard deviations of q(z1|x) start, for codewords 0 and 1."""
        return self.scale or (math.sqrt(math.log1p(math.exp(self.variance_bias))),) * 2

    def logits(self, prob: float) -> tuple[float, float, float, float]:
        """The logits of p(x|z1): a centre, and the coefficients of 1, d and d² in the distance d of z1 from it."""
        (m0, m1), (s0, s1) = self.means(prob), self.scales()
        centre = 0.5 * (m0 + m1)
        if not self.loc:
            return centre, 0.0, self.slope, 0.0
        half, v0, v1 = 0.5 * (m1 - m0), s0**2, s1**2
        odds = math.log(prob) - math.log1p(-prob) - math.log(s1 / s0)
        return centre, odds - 0.5 * half**2 * (1.0 / v1 - 1.0 / v0), half * (1.0 / v1 + 1.0 / v0), 0.5 / v0 - 0.5 / v1

    @property
    def holds_the_bit(self) -> bool:
        """Whether the codewords differ in it."""
        return len(set(self.means(0.5))) > 1


#: No skips: the original's start, in which the latents carry nothing yet.
PLAIN = Start()
#: Where two layers start around what one has learned: the modes of q(z1) lie this far on either side of 0, with so many
#: of their standard deviations to there, and more where ndims is large: what crosses costs every dimension's bit.
_DISTANCE, _PARTED, _CROSSING = 3.0, 5.5, 2e-5
#: The noise of both conditionals between the latents there, on which the start's distance from the entropy hangs.
_BETA = 0.02


def start_around(loc: tuple[float, ...], scale: tuple[float, ...], layers: int, ndims: int) -> Start:
    """The start around a Gaussian q(z1|x), which nothing plants.

    With two layers the scale of z1 is free, and q(z1|x) is made so narrow that next to nothing lies between its modes;
    unless they overlap by more than half: then the latents start unused.

    Arguments:
        loc: Means for codewords 0 and 1.
        scale: Standard deviations.
        layers: Latent layers.
        ndims: Dimensions of x.
    """
    start = Start(loc=loc, scale=scale, beta=_BETA, head=0.0)
    if layers == 1:
        return start
    (m0, m1), (s0, s1) = loc, scale
    if abs(m1 - m0) < s0 + s1:
        return replace(start, loc=(0.0, 0.0), scale=(1.0, 1.0))
    parted = max(_PARTED, -float(ndtri(_CROSSING / ndims)))
    side, unit = math.copysign(_DISTANCE, m1 - m0), 2.0 * _DISTANCE / parted / (s0 + s1)
    # The gap's middle, in units of both modes' standard deviations, lies at 0.
    low, high = (2.0 * side * s / (s0 + s1) for s in scale)
    return replace(start, loc=(-low, high), scale=(s0 * unit, s1 * unit))


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
        transport: Whether the networks between z1 and z2 correct the map that carries the starting q(z1) to
            the prior of z2 (`TransportNet`), or are all there is.
        start: The skips and initial weights.
    """

    width_x: int = 10
    width_z: int = 100
    hidden_layers: int = 3
    average: bool = False
    transport: bool = False
    start: Start = field(default=PLAIN)

    def __post_init__(self) -> None:
        for name, most in (("width_x", _WIDEST), ("width_z", _WIDEST), ("hidden_layers", _DEEPEST)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 1 to {most}")


REFERENCE = Architecture()
ONE_LAYER = Architecture(average=True, start=Start(separation=1.0, centre="balanced", slope=20.0, variance_bias=-2.4))
TWO_LAYER = Architecture(
    width_z=48, average=True, transport=True, start=Start(separation=3.0, slope=20.0, variance_bias=-1.0, head=0.5)
)
