"""The networks' sizes and coordinates, and where training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from scipy.special import ndtri

from pyro_onebit.data import gray_code, ideal_threshold, word_probs
from pyro_onebit.errors import InputError

#: Networks larger than these are no use to one or two scalar latents, and a file that asks for them is forged.
_WIDEST, _DEEPEST = 4096, 64


@dataclass(frozen=True)
class Start:
    r"""Where training starts: skips around the networks, which are what is learned.

    Either the means and standard deviations of q(z1|x) are given for each codeword; then the logits of p(x|z1) start
    as the log-odds of the responsibilities of q(z1|x), which is the best decoder of that guide. Or a start is planted,
    with the codewords of several bits in the order of the Gray code (`gray_code`).

    Arguments:
        separation: Planted, the outermost means of q(z1|x) differ by twice this, and the others lie evenly between
            them; around thresholds it is each mean's distance from its inner one, or half its interval if less.
        centre: What lies halfway between the outermost means: ``zero``; ``balanced``, where they average to 0 over
            the data, as an optimal Gaussian q(z1|x) does under a standard normal prior; ``threshold``, where
            an ideal latent is cut (in 2^K intervals, of each codeword's probability).
        slope: Slope in z1 of the planted log-odds of two codewords; they are zero between the two.
        variance_bias: Added to the input of every planted variance's softplus.
        loc: The means of q(z1|x), for each codeword, in place of what is planted.
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

    def means(self, prob: float, repeats: Sequence[int] = (1,)) -> tuple[float, ...]:
        """Where the means of q(z1|x) start, for each codeword of bits that are 1 with probability `prob`."""
        if self.loc:
            return self.loc
        cuts, order = self.cuts(prob, repeats), gray_code(repeats)
        if self.centre != "threshold":
            gaps = len(cuts)
            middle = self._middle(prob)
            return _by_word(order, [middle + self.separation * (2.0 * i / gaps - 1.0) for i in range(gaps + 1)])
        half = len(cuts) // 2
        return _by_word(
            order,
            [
                cuts[i] - self._reach(cuts, i) if i <= half else cuts[i - 1] + self._reach(cuts, i)
                for i in range(len(order))
            ],
        )

    def scales(self, prob: float, repeats: Sequence[int] = (1,)) -> tuple[float, ...]:
        """Where the standard deviations of q(z1|x) start, for each codeword."""
        if self.scale:
            return self.scale
        scale, cuts = math.sqrt(math.log1p(math.exp(self.variance_bias))), self.cuts(prob, repeats)
        if self.separation == 0.0:
            return (scale,) * (len(cuts) + 1)
        if self.centre != "threshold":
            return (scale / len(cuts),) * (len(cuts) + 1)
        shares = [self._reach(cuts, i) / self.separation for i in range(len(cuts) + 1)]
        return _by_word(gray_code(repeats), [scale * share for share in shares])

    def widths(self, prob: float, repeats: Sequence[int] = (1,)) -> tuple[float, ...]:
        """How far each codeword's interval reaches from its mean, which lies near its inner threshold."""
        cuts, order = self.cuts(prob, repeats), gray_code(repeats)
        if not self.holds_the_bit:
            return (_FAR,) * len(order)
        between = [
            max(end - begin - 2.0 * self._reach(cuts, i), 0.5 * (end - begin))
            for i, (begin, end) in enumerate(pairwise(cuts), 1)
        ]
        return _by_word(order, [_FAR, *between, _FAR])

    def cuts(self, prob: float, repeats: Sequence[int] = (1,)) -> list[float]:
        """Where a planted decoder goes over from one codeword to the next, in the order of the Gray code."""
        probs, order = word_probs([prob] * len(repeats)), gray_code(repeats)
        if self.centre == "threshold":
            return [ideal_threshold(sum(probs[c] for c in order[i:])) for i in range(1, len(order))]
        middle, gaps = self._middle(prob), len(order) - 1
        return [middle + self.separation * ((2.0 * i + 1.0) / gaps - 1.0) for i in range(gaps)]

    def _middle(self, prob: float) -> float:
        return self.separation * (1.0 - 2.0 * prob) if self.centre == "balanced" else 0.0

    def _reach(self, cuts: Sequence[float], place: int) -> float:
        """How far the mean at a place lies from its cut."""
        ends = (-math.inf, *cuts, math.inf)
        return min(self.separation, 0.5 * (ends[place + 1] - ends[place]))

    def odds(self, prob: float, repeats: Sequence[int] = (1,)) -> list[tuple[float, float, float, float]]:
        """Of each codeword but the first, its log-odds over the first given z1.

        As a centre, and the coefficients of 1, d and d² in the distance d of z1 from it.
        """
        if not self.loc:
            cuts, order = self.cuts(prob, repeats), gray_code(repeats)
            steep = self.slope if self.centre == "threshold" else self.slope * len(cuts)
            places = [order.index(c) for c in range(1, len(order))]
            return [(sum(cuts[:i]) / i, 0.0, steep * i, 0.0) for i in places]
        probs = word_probs([prob] * len(repeats))
        m0, s0, p0 = self.loc[0], self.scale[0], probs[0]
        found = []
        for m1, s1, p1 in zip(self.loc[1:], self.scale[1:], probs[1:], strict=True):
            half, v0, v1 = 0.5 * (m1 - m0), s0**2, s1**2
            odds = math.log(p1) - math.log(p0) - math.log(s1 / s0)
            found.append(
                (
                    0.5 * (m0 + m1),
                    odds - 0.5 * half**2 * (1.0 / v1 - 1.0 / v0),
                    half * (1.0 / v1 + 1.0 / v0),
                    0.5 / v0 - 0.5 / v1,
                )
            )
        return found

    @property
    def holds_the_bit(self) -> bool:
        """Whether codewords differ in it."""
        return len(set(self.means(0.5))) > 1


def _by_word(order: Sequence[int], values: Sequence[float]) -> tuple[float, ...]:
    """What stands at each place of an order, by the codewords' numbers."""
    return tuple(value for _, value in sorted(zip(order, values, strict=True)))


#: A standard normal has nothing beyond.
_FAR = 40.0
#: No skips: the original's start, in which the latents carry nothing yet.
PLAIN = Start()
#: Where two layers start around what one has learned: the outer modes of q(z1) lie this far on either side of 0, each
#: with so many of its standard deviations to its gap's middle, and more where ndims is large: what crosses costs every
#: dimension's bit.
_DISTANCE, _PARTED, _CROSSING = 3.0, 5.5, 2e-5
#: The noise of both conditionals between the latents there, on which the start's distance from the entropy hangs.
_BETA = 0.02


def start_around(loc: tuple[float, ...], scale: tuple[float, ...], layers: int, ndims: int) -> Start:
    """The start around a Gaussian q(z1|x), which nothing plants.

    With two layers the scale of z1 is free, and q(z1|x) is made so narrow that next to nothing lies between its modes.
    Neighbours that overlap by more than half become one mode; if all do, the latents start unused.

    Arguments:
        loc: Means for each codeword.
        scale: Standard deviations.
        layers: Latent layers.
        ndims: Dimensions of x.
    """
    start = Start(loc=loc, scale=scale, beta=_BETA, head=0.0)
    if layers == 1:
        return start
    modes: list[list[int]] = []
    for c in sorted(range(len(loc)), key=lambda c: loc[c]):
        if modes and loc[c] - loc[modes[-1][-1]] < scale[modes[-1][-1]] + scale[c]:
            modes[-1].append(c)
        else:
            modes.append([c])
    if len(modes) == 1:
        return replace(start, loc=(0.0,) * len(loc), scale=(1.0,) * len(loc))
    parted = max(_PARTED, -float(ndtri(_CROSSING / ndims)))
    widths = [sum(scale[c] for c in mode) / len(mode) for mode in modes]
    # Gaps are as wide as both their modes; the middle one's middle, in units of these modes' standard deviations, is 0.
    half = len(modes) // 2
    above, below = (_outwards(side) for side in (widths[half:], widths[half - 1 :: -1]))
    extent = below[-1] + above[-1]
    places = [*(-place for place in reversed(below)), *above]
    unit = 2.0 * _DISTANCE / parted / extent
    found = {
        c: (2.0 * _DISTANCE * place / extent, width * unit)
        for mode, place, width in zip(modes, places, widths, strict=True)
        for c in mode
    }
    means, scales = zip(*(found[c] for c in range(len(loc))), strict=True)
    return replace(start, loc=means, scale=scales)


def _outwards(widths: Sequence[float]) -> list[float]:
    """How far from 0 modes of these widths lie, side by side, the first one with its edge there."""
    return [2.0 * sum(widths[:i]) + width for i, width in enumerate(widths)]


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
        repeats: In how many dimensions each bit of x is repeated; empty: there is one.
        start: The skips and initial weights.
    """

    width_x: int = 10
    width_z: int = 100
    hidden_layers: int = 3
    average: bool = False
    transport: bool = False
    repeats: tuple[int, ...] = ()
    start: Start = PLAIN

    def __post_init__(self) -> None:
        for name, most in (("width_x", _WIDEST), ("width_z", _WIDEST), ("hidden_layers", _DEEPEST)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 1 to {most}")


REFERENCE = Architecture()
ONE_LAYER = Architecture(average=True, start=Start(separation=1.0, centre="balanced", slope=20.0, variance_bias=-2.4))
TWO_LAYER = Architecture(
    width_z=48, average=True, transport=True, start=Start(separation=3.0, slope=20.0, variance_bias=-1.0, head=0.5)
)
