r"""In which order a sample and its latents are drawn and coded.

With one latent: draw z given x, code x given z, code z (BB-ANS; Townsend, Bird and Barber 2019). With two, and a guide
that draws z2 given z1 whatever x is, the chain of Bit-Swap (Kingma, Abbeel and Ho 2019): draw z1 given x, code x, draw
z2, code z1, code z2; the first draw takes less of what must be there before the first sample. Any other guide draws
both latents before anything is coded, in its own order: BB-ANS on the two at once.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray

from pyro_onebit.coding.entropy_models import PRECISION, Pixels, Table
from pyro_onebit.exact import Truth
from pyro_onebit.programs import Pair

_MODELS = constriction.stream.model
#: Of the next quantile this many bits are dithered: the coder's largest uniform distribution over a power of two.
DITHERED = PRECISION - 1
_DITHER = _MODELS.Uniform(1 << DITHERED)
#: q(z1|x) has no more than this beyond either end of z1's grid.
_BEYOND = 1e-9

_Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


class Chain:
    """Bit-Swap, and BB-ANS with one latent.

    Arguments:
        pixels: p(x|z1).
        links: For each latent from the lowest up: what it is drawn from, and what is coded under it.
        prior: Of the top latent.
    """

    def __init__(self, pixels: Pixels, links: list[tuple[Table, Any]], prior: Table) -> None:
        self.pixels, self.links, self.prior = pixels, links, prior

    @property
    def tables(self) -> list[Table]:
        """Every table that is coded with."""
        return [table for link in self.links for table in link if isinstance(table, Table)]

    def push(self, coder: Any, sample: int, shifts: list[int]) -> None:
        """Code a sample; `shifts`, if any, dither its draws."""
        lower = sample
        for i, (posterior, likelihood) in enumerate(self.links):
            if shifts:
                _shift(coder, shifts[i])
            latent = posterior.pop(coder, lower)
            likelihood.push(coder, lower, latent)
            lower = latent
        self.prior.push(coder, lower, 0)

    def pop(self, coder: Any, shifts: list[int]) -> int:
        """Decode a sample."""
        latent = self.prior.pop(coder, 0)
        for i, (posterior, likelihood) in reversed(list(enumerate(self.links))):
            lower = likelihood.pop(coder, latent)
            posterior.push(coder, latent, lower)
            if shifts:
                _shift(coder, -shifts[i])
            latent = lower
        return int(latent)

    def moments(self, *, coded: bool) -> _Moments:
        """E[bits] and E[bits^2] of each codeword, ``(M,)``, from the top latent down."""
        [mean] = -_log2(self.prior, coded=coded)
        square = mean**2
        for posterior, likelihood in reversed(self.links):
            log_q, log_p = (_log2(part, coded=coded) for part in (posterior, likelihood))
            if likelihood is not self.pixels:
                log_p = log_p.T  # of z1 given z2, not of x in order of codewords
            q = np.exp2(log_q)
            # Where nothing is drawn, nothing is paid, though it may cost infinitely much.
            own = np.where(q > 0.0, log_q, 0.0) - np.where(q > 0.0, log_p, 0.0)
            square = (q * (own**2 + 2.0 * own * mean + square)).sum(-1)
            mean = (q * (own + mean)).sum(-1)
        return mean, square


class Joint:
    """BB-ANS on two latents at once.

    Arguments:
        pixels: p(x|z1).
        first: Of the latent that the guide draws first, given x: M conditions.
        second: Of the other one, given x and the first: M times as many conditions as the first has values, or M.
        below: p(z1|z2).
        prior: Of z2.
        up: Whether z1 is drawn first.
    """

    def __init__(self, pixels: Pixels, first: Table, second: Table, below: Table, prior: Table, *, up: bool) -> None:
        self.pixels, self.first, self.second, self.below, self.prior, self.up = pixels, first, second, below, prior, up
        #: Conditions of the second latent for each codeword: values of the first, or one.
        self._conditions = len(second.masses) // len(first.masses)

    @property
    def tables(self) -> list[Table]:
        """Every table that is coded with."""
        return [self.first, self.second, self.below]

    def _row(self, sample: int, first: int) -> int:
        return sample * self._conditions + (first if self._conditions > 1 else 0)

    def push(self, coder: Any, sample: int, shifts: list[int]) -> None:
        """Code a sample; `shifts`, if any, dither its draws."""
        if shifts:
            _shift(coder, shifts[0])
        first = self.first.pop(coder, sample)
        if shifts:
            _shift(coder, shifts[1])
        second = self.second.pop(coder, self._row(sample, first))
        low, top = (first, second) if self.up else (second, first)
        self.pixels.push(coder, sample, low)
        self.below.push(coder, low, top)
        self.prior.push(coder, top, 0)

    def pop(self, coder: Any, shifts: list[int]) -> int:
        """Decode a sample."""
        top = self.prior.pop(coder, 0)
        low = self.below.pop(coder, top)
        sample = self.pixels.pop(coder, low)
        first, second = (low, top) if self.up else (top, low)
        self.second.push(coder, second, self._row(sample, first))
        if shifts:
            _shift(coder, -shifts[1])
        self.first.push(coder, first, sample)
        if shifts:
            _shift(coder, -shifts[0])
        return sample

    def moments(self, *, coded: bool) -> _Moments:
        """E[bits] and E[bits^2] of each codeword, ``(M,)``, summed over both latents."""
        first, second, below, x = (
            _log2(part, coded=coded) for part in (self.first, self.second, self.below, self.pixels)
        )
        [top] = _log2(self.prior, coded=coded)
        words = len(first)
        mean, square = np.empty(words), np.empty(words)
        rows = second.reshape(words, self._conditions, -1)
        for word in range(words):
            # Of shape (values of the first, values of the second).
            log_q = first[word, :, None] + rows[word]
            log_p = (below.T + x[word][:, None] + top) if self.up else (below + x[word] + top[:, None])
            q = np.exp2(log_q)
            bits = np.where(q > 0.0, log_q, 0.0) - np.where(q > 0.0, log_p, 0.0)
            mean[word], square[word] = (q * bits).sum(), (q * bits**2).sum()
        return mean, square


def _log2(part: Table | Pixels, *, coded: bool) -> NDArray[np.float64]:
    return part.log2_masses if coded else part.log2


def _shift(coder: Any, shift: int) -> None:
    """Shift the bits that the next latent is drawn from; back again by the negative."""
    quantile = coder.decode(_DITHER)
    coder.encode_reverse((quantile + shift) % (1 << DITHERED), _DITHER)


def make_scheme(pair: Pair, truth: Truth, bins: int, points: int, *, adapted: bool = True) -> Chain | Joint:
    """The order for a model and a guide, with its tables.

    Arguments:
        pair: The programs.
        truth: The latents' densities.
        bins: Bins of the top latent.
        points: Points of z1's grid in a two-layer model.
        adapted: Whether z2's bins are laid where q(z2|z1) is narrow, too, if it is drawn after z1; else all are of
            equal mass under its prior.
    """
    equal = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64)
    if len(pair.latents) == 1:
        top, log_measure, prior = _bins(pair, truth, equal)
        pixels = Pixels(pair, top)
        return Chain(pixels, [(_first(pair, top, log_measure), pixels)], prior)
    bottom, name = pair.latents
    low = truth.grids[0]
    cumulative = low.cumulative(truth.q_masses[0] / low.weights)
    ends = low.invert(cumulative, torch.tensor([[_BEYOND, 1.0 - _BEYOND]]).expand(pair.words, 2))
    z1 = torch.linspace(float(ends.min()), float(ends.max()), points, dtype=torch.float64)
    down = pair.guide.latents[0] == name
    edges = _following(pair, truth, z1, equal) if adapted and not down else equal
    top, log_measure, prior = _bins(pair, truth, edges)
    pixels = Pixels(pair, z1)
    p_bottom = pair.given(pair.model, bottom, {name: top[:, None]}).log_prob(z1)
    below = _table(p_bottom[..., 0].T, popped=False)
    if down:
        q_bottom = pair.given(pair.guide, bottom, {name: top[:, None]}).log_prob(z1)
        return Joint(pixels, _first(pair, top, log_measure), _second(pair, q_bottom), below, prior, up=False)
    q_top = pair.given(pair.guide, name, {bottom: z1[:, None]}).log_prob(top) - log_measure[:, None, None]
    first = _first(pair, z1, torch.zeros_like(z1))
    if q_top.shape[1:] == (points, 1):
        return Chain(pixels, [(first, pixels), (_table(q_top[..., 0].T, popped=True), below)], prior)
    return Joint(pixels, first, _second(pair, q_top), below, prior, up=True)


def _bins(pair: Pair, truth: Truth, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Table]:
    """Bins of the top latent between shares of its prior ``(bins + 1,)``: middles, log of their density, and prior."""
    masses = edges.diff()
    top = truth.grid.quantiles(truth.log_prior.exp(), edges[:-1] + 0.5 * masses)
    # In the prior's own measure a bin is as wide as its mass.
    return top, pair.first_p.log_prob(top)[:, 0, 0] - masses.log(), _table(masses.log()[None], popped=False)


def _following(pair: Pair, truth: Truth, z1: torch.Tensor, equal: torch.Tensor) -> torch.Tensor:
    """Every other one of equal shares of z2's prior, and those to which q(z2|z1) goes as z1 moves evenly over its grid.

    Between two modes of z1 it moves little, and q(z2|z1) is narrow there; bins between these shares are so, too.
    """
    bottom, name = pair.latents
    log_q = pair.given(pair.guide, name, {bottom: z1[:, None]}).log_prob(truth.grid.nodes)
    if log_q.shape[1] < len(z1):
        return equal  # it goes nowhere
    shares = truth.grid.cumulative(truth.log_prior.exp())
    masses = torch.softmax(log_q + truth.grid.weights.log()[:, None, None], 0)
    means = (masses * (shares / shares[-1])[:, None, None]).sum(0).mean(-1)
    at = np.linspace(0.0, len(z1) - 1.0, len(equal) // 2)
    moved = torch.from_numpy(np.interp(at, np.arange(len(z1)), means.numpy())).clamp(0.0, 1.0)
    return torch.cat([equal[::2], moved]).unique()


def _first(pair: Pair, z: torch.Tensor, log_measure: torch.Tensor) -> Table:
    """q of the latent that is drawn first, at its points ``(N,)``."""
    log_q = pair.first_q.log_prob(z)[:, 0] - log_measure[:, None]
    return _table(log_q.expand(-1, pair.words).T, popped=True)


def _second(pair: Pair, log_q: torch.Tensor) -> Table:
    """q of the other one, ``(N, values of the first or 1, M or 1)``; the codewords' conditions one after another."""
    table = log_q.expand(-1, -1, pair.words).permute(2, 1, 0)
    return _table(table.flatten(0, 1), popped=True)


def _table(log_weights: torch.Tensor, *, popped: bool) -> Table:
    return Table(log_weights.numpy(), popped=popped)
