"""Where the quadrature's nodes go: grids that resolve what a model and a guide make of their latents.

A grid cannot see what lies outside of its range, or between its nodes. So places to look come from the densities, on
panels that widen like sinh(t) as far as 10^19, and from draws; and afterwards densities must integrate to one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_onebit.exact.landmarks import beyond, distinct, draws_of, look_around
from pyro_onebit.programs import Mesh, Pair, slices
from pyro_onebit.quadrature import Grid, Product, merge, refine

#: How far t goes: to some 10^19, and if that is not the end, to 10^69, where powers of z are still numbers.
_FAR = (45.0, 160.0)
#: Draws of each codeword that say where to look, and those that look for what is missing.
_DRAWS, _MORE_DRAWS = 4096, 100_000
#: Panels of a single latent, at most, and pairs of panels of two, for each two codewords: more take minutes.
_MOST, _MOST_PAIRS = 40_000, 250_000
#: What panels may change by where they are halved, and where two are merged; ten times as much in a mesh's first pass,
#: which only says where the second begins.
_HALVED, _MERGED, _FIRST = 3e-10, 1e-10, 10.0
#: Passes over all axes.
_PASSES = 6
#: How often, and at how many places each time, the grids are mended where draws show what they do not resolve.
_LOOKS, _PLACES = 4, 64


class Search:
    """A search for grids that together resolve every density of both programs.

    Uses torch's generator. Raises `ArithmeticError`: if a density is not a number where it matters, or not resolved.

    Arguments:
        pair: The programs.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.draws = draws_of(pair, _DRAWS)
        self._halvings = 0
        for far in _FAR:
            self.edges, self.log_evidence, is_all = look_around(pair, self.draws, far)
            if is_all:
                break

    def look_harder(self) -> None:
        """Draw more, for what is narrow and rare, and look at one latent at more places of the other."""
        self._halvings = 2
        self.draws = draws_of(self.pair, _MORE_DRAWS)
        self.edges = [distinct(edges, beyond(own)) for edges, own in zip(self.edges, self.draws, strict=True)]
        self._add(self._unseen())

    def grids(self) -> tuple[Grid, ...]:
        """A grid for each latent, the lowest first, that resolves all densities, at the draws too."""
        self._refine_all()
        for _ in range(_LOOKS):
            unseen = self._unseen()
            if not any(map(len, unseen)):
                break
            self._add(unseen)
            self._refine_all()
        return (*map(Grid, self.edges[:-1]), Grid(distinct(self.edges[-1], self._thresholds())))

    def _add(self, edges: list[Tensor]) -> None:
        self.edges = [distinct(old, new) for old, new in zip(self.edges, edges, strict=True)]

    def _thresholds(self) -> Tensor:
        """Where an ideal model would cut the top latent, if the codewords have q's order, or the reverse."""
        grid, words = Grid(self.edges[-1]), self.pair.words
        order = self.draws[-1][:, :words].median(0).values.argsort()
        shares = torch.cat([self.pair.probs[own].cumsum(0)[:-1] for own in (order, order.flip(0))])
        return grid.quantiles(self.pair.first_p.log_prob(grid.nodes)[:, 0, 0].exp(), shares)

    def _unseen(self) -> list[Tensor]:
        """Panel edges around draws at which the grids do not know the density that they are drawn from."""
        found = [[edges[:0]] for edges in self.edges]
        for program in (self.pair.guide, self.pair.model):
            axis = self.pair.latents.index(program.latents[0])
            grid, first = Grid(self.edges[axis]), self.pair.first(program)
            is_guide = program is self.pair.guide
            nodes = first.log_prob(grid.nodes)[:, 0]
            draws = self.draws[axis][:, : self.pair.words] if is_guide else self.draws[axis][:, -1:]
            for c, z in enumerate(draws.T):
                z = z[(z > grid.edges[0]) & (z < grid.edges[-1])].sort().values
                if not len(z):
                    continue
                column = c if nodes.shape[-1] > 1 else 0
                density = first.log_prob(z)[:, 0, column].exp()
                off = (grid.interpolated(nodes[:, column].exp(), z) - density).abs()
                [wrong] = torch.nonzero(off > 1e-3 * density, as_tuple=True)
                # The steepest of them, away from each other, with panels that hold one draw, then several, then many.
                for _ in range(_PLACES):
                    if not len(wrong):
                        break
                    i = wrong[density[wrong].argmax()]
                    width = 1.0 / (len(z) * density[i])
                    reach = width * torch.tensor([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0], dtype=z.dtype)
                    found[axis] += [z[i] - reach, z[i] + reach, z[i : i + 1]]
                    wrong = wrong[(z[wrong] - z[i]).abs() > 64.0 * width]
        ends = [(edges[0], edges[-1]) for edges in self.edges]
        return [own[(own > low) & (own < high)] for own, (low, high) in zip(map(torch.cat, found), ends, strict=True)]

    def _refine_all(self) -> None:
        """Refine each axis in turn until the scales no longer change."""
        for turn in range(_PASSES):
            before = self.log_evidence
            for axis in range(len(self.edges)):
                self._refine(axis, _FIRST if turn == 0 and len(self.edges) == 2 else 1.0)
            if turn + 1 >= len(self.edges) and (self.log_evidence - before).abs().max() < 0.5:
                break

    def _refine(self, axis: int, roughness: float) -> None:
        """Refine one latent's panels."""
        integrands = self._integrands(axis)
        single = len(self.edges) == 1
        most = _MOST if single else _MOST_PAIRS * self.pair.words // (2 * len(self.edges[1 - axis]))
        panels = refine(integrands, self.edges[axis], roughness * _HALVED, jumps=single, most=most).without_empty_ends()
        # On a mesh every node counts as often as the other latent has nodes.
        self.edges[axis] = panels.edges if single else merge(integrands, panels, roughness * _MERGED)
        posterior = panels.integrals[:, -self.pair.words :].sum(0)
        self.log_evidence = self.log_evidence + posterior.log().nan_to_num(neginf=0.0)

    def _integrands(self, axis: int) -> Callable[[Tensor], Tensor]:
        """What one latent's panels are to resolve, at the middles of the other's, which stand for their panels' masses.

        The densities, and what KL(q ‖ p) and KL(p ‖ q) are integrals of; the last M functions are the posteriors.
        """
        pair, single, words = self.pair, len(self.edges) == 1, self.pair.words
        # Beside a single latent stands one panel, of width one.
        grids = [Grid(edges) for edges in ([torch.tensor([-0.5, 0.5]).double()] if single else []) + self.edges]
        for _ in range(0 if single else self._halvings):
            grids = [grid.halved() for grid in grids]
        is_top = single or axis == 1
        widths, mesh = grids[0 if is_top else 1].widths, Mesh(pair, *(grid.midpoints for grid in grids))
        along, count = 0 if is_top else 1, len(widths)

        def integrands(z: Tensor) -> Tensor:
            table = torch.zeros(len(z), count + 5 * words, dtype=z.dtype)
            for rows, near, at in slices(mesh, z, widths, self.log_evidence, of_top=is_top):
                ones = torch.ones(len(rows), dtype=z.dtype)
                weights = (ones, widths[near]) if is_top else (widths[near], ones)
                q = Product(at.q, *weights, words)
                prior = Product(at.p, *weights, words)
                posterior = prior.times("x", at.likelihood - self.log_evidence)
                log_q, log_p = list(at.q.values()), [*at.p.values(), at.likelihood]
                gap = [*((1.0, part) for part in log_q), *((-1.0, part) for part in log_p)]
                one = [(1.0, torch.ones(1, 1, 1, dtype=z.dtype))]
                kinds = q.sums_over(along, one, gap) + prior.sums_over(along, one)
                kinds += posterior.sums_over(along, gap, one)
                # Of slices one function each: parts that are all positive do not hide each other.
                parts = q.total() + posterior.total() + prior.total()
                table[rows[:, None], near] = parts if is_top else parts.T
                # Where the prior has nothing and q has something their ratio is infinite, and no panels help.
                table[rows, count:] = torch.cat(kinds, 1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            return table

        return integrands
