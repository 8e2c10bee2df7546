"""Both programs' sites on a mesh of two latents, and where on it there is anything.

Most pairs of values of two latents that depend on each other have next to no density. Two nodes of each panel, which no
point of it is far from, are looked at, and what is found counts for its neighbours too.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from pyro_onebit.programs.conditional import Conditional
from pyro_onebit.programs.densities import Densities
from pyro_onebit.programs.pair import BLOCK, Pair
from pyro_onebit.quadrature import ORDER, Grid, log_product

#: Panels that are taken together.
_TOGETHER = 24
#: Logarithms of what a part may be and be left out: as a share of its row's and its column's largest; and by itself.
_FAINT_SHARE, _FAINT = -100.0, -80.0


class Mesh:
    """The sites at nodes of two latents.

    Arguments:
        pair: The programs.
        low: Nodes of the lower latent ``(L,)``. With a single latent it has one, which stands for nothing.
        top: Nodes of the top latent ``(B,)``.
    """

    def __init__(self, pair: Pair, low: Tensor, top: Tensor) -> None:
        self.pair = pair
        self._guide_up = len(pair.latents) == 2 and pair.guide.latents[0] == pair.latents[0]
        self._set_top(top)
        self._set_low(low)

    def _set_low(self, low: Tensor, *, alone: bool = False) -> None:
        self.low = low
        if len(self.pair.latents) == 1:
            return
        if self._guide_up:
            self._low_q = self.pair.first_q.log_prob(low).transpose(0, 1)
            self._q = self._of_guide(low, alone=alone)
        if not self.pair.x_needs_top:
            self._likelihood = self.pair.likelihood_at(low)[None]

    def _set_top(self, top: Tensor, *, alone: bool = False) -> None:
        self.top, self._top_p = top, self.pair.first_p.log_prob(top)
        if len(self.pair.latents) == 1:
            self._likelihood = self.pair.likelihood_at(top)[:, None]
        else:
            bottom, name = self.pair.latents
            self._low_p = self.pair.given(self.pair.model, bottom, {name: top[:, None]})
        if not self._guide_up:
            self._top_q = self.pair.first_q.log_prob(top)
            if len(self.pair.latents) == 2:
                self._q = self._of_guide(top, alone=alone)

    def _of_guide(self, nodes: Tensor, *, alone: bool) -> Conditional:
        """The guide's second latent, given its first."""
        guide = self.pair.guide
        first, second = guide.latents
        return guide.conditional(second, {first: nodes[:, None]}, alone=alone)

    def moved(self, *, low: Tensor | None = None, top: Tensor | None = None) -> Mesh:
        """The same with other nodes of one of the latents.

        Where codewords made no difference to the guide's second latent, given the nodes that there were of its first,
        they are taken to make none given others.
        """
        mesh, alone = copy.copy(self), self.pair.guide.splits and len(self._q.parts) == 1
        if low is not None:
            mesh._set_low(low, alone=alone)
        if top is not None:
            mesh._set_top(top, alone=alone)
        return mesh

    @cached_property
    def whole(self) -> Densities:
        """The sites at all pairs of nodes, each of shape ``(B or 1, L or 1, M or 1)``."""
        return self.at(torch.arange(len(self.top)), torch.arange(len(self.low)))

    def at(self, rows: Tensor, near: Tensor) -> Densities:
        """The sites at some nodes of the top latent, beside some of the lower one, by their numbers."""
        latents = self.pair.latents
        if len(latents) == 1:
            [name] = latents
            return Densities({name: self._top_q[rows]}, {name: self._top_p[rows]}, self._likelihood[rows])
        (bottom, name), low, top = latents, self.low[near], self.top[rows]
        # In one order all: to read two tables in different orders takes longer than to copy one.
        p = {name: self._top_p[rows], bottom: _turned(self._low_p.only(rows), low)}
        if self._guide_up:
            q = {bottom: self._low_q[:, near], name: self._q.only(near).log_prob(top)}
        else:
            q = {name: self._top_q[rows], bottom: _turned(self._q.only(rows), low)}
        if not self.pair.x_needs_top:
            return Densities(q, p, self._likelihood[:, near])
        mesh = {bottom: low.repeat(len(top))[:, None], name: top.repeat_interleave(len(low))[:, None]}
        return Densities(q, p, self.pair.likelihood(mesh).reshape(len(top), len(low), -1))


def _turned(conditional: Conditional, low: Tensor) -> Tensor:
    """Log-densities at nodes of the lower latent, given nodes of the top one, ``(B, L, M or 1)``."""
    return conditional.log_prob(low).transpose(0, 1).contiguous()


def blocks(pair: Pair, grids: Sequence[Grid]) -> Iterator[tuple[Tensor, Tensor, Densities]]:
    """The sites on a mesh, in blocks: nodes of the top latent, and those of the lower one that matter beside them.

    Left out is what is a share of less than e^-100 in its row and in its column, of every density of each codeword.

    Arguments:
        pair: The programs.
        grids: The latents' grids, the lowest first. A single latent stands above a lower one that has one value.

    Returns:
        The nodes' numbers, ``(B,)`` and ``(L,)``, and the sites there.
    """
    top = grids[-1]
    places = torch.arange(len(top.nodes))
    if len(grids) == 1:
        nought = torch.zeros(1, dtype=torch.float64)
        for rows in places.split(BLOCK):
            yield rows, torch.zeros(1, dtype=torch.int64), Mesh(pair, nought, top.nodes[rows]).whole
        return
    low, mesh = grids[0], Mesh(pair, *(grid.nodes for grid in grids))
    seen = [_two_of_each(len(grid.nodes), grid.order) for grid in grids]
    (log_low, log_top) = (grid.weights[own].log() for grid, own in zip(grids, seen, strict=True))
    matters = torch.zeros(len(seen[1]), len(seen[0]), dtype=torch.bool)
    for part in _parts(mesh.at(seen[1], seen[0]), pair.words, log_low + log_top[:, None]):
        # What is not a number matters.
        matters |= ~((part < part.amax(0) + _FAINT_SHARE) & (part < part.amax(1, keepdim=True) + _FAINT_SHARE))
    beside = _with_neighbours(matters.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).any(3).any(1))
    # Of what is nought everywhere there is something to be added up, too.
    beside |= ~beside.any(1, keepdim=True)
    panels = torch.arange(len(low.nodes)).unflatten(0, (-1, low.order))
    for own, others in zip(places.split(_TOGETHER * top.order), beside.split(_TOGETHER), strict=True):
        near = panels[others.any(0)].flatten()
        for rows in own.split(max(1, BLOCK // len(near))):
            yield rows, near, mesh.at(rows, near)


def slices(
    mesh: Mesh, nodes: Tensor, widths: Tensor, log_evidence: Tensor, *, of_top: bool
) -> Iterator[tuple[Tensor, Tensor, Densities]]:
    """The sites at other nodes of one latent, and at those of the other latent's that matter beside them, in blocks.

    Left out is what is less than e^-80, of q, of the prior and of the posterior.

    Arguments:
        mesh: A mesh, whose nodes of the other latent are taken.
        nodes: With two latents those of one panel after the other, ``(panels * ORDER,)``.
        widths: What each of the other latent's nodes stands for.
        log_evidence: ``(M,)``, nats, by which the posterior is scaled.
        of_top: Whether the nodes are the top latent's.

    Returns:
        The numbers of nodes and of the other latent's, and the sites there.
    """
    places, words = torch.arange(len(nodes)), mesh.pair.words
    if len(mesh.pair.latents) == 1:
        yield places, places[:1], Mesh(mesh.pair, mesh.low, nodes).whole
        return
    mesh = mesh.moved(top=nodes) if of_top else mesh.moved(low=nodes)
    seen, others, panels = _two_of_each(len(nodes), ORDER), torch.arange(len(widths)), nodes.unflatten(0, (-1, ORDER))
    # Somewhat more than what each of the two stands for.
    log_width = (panels[:, -1] - panels[:, 0]).repeat_interleave(2).log()[:, None] + widths.log()
    matters = torch.zeros(len(seen), len(others), dtype=torch.bool)
    look = mesh.at(seen, others) if of_top else mesh.at(others, seen)
    for part in _parts(look, words, log_width if of_top else log_width.T, log_evidence):
        matters |= ~((part if of_top else part.T) < _FAINT)
    beside = _with_neighbours(matters.unflatten(0, (-1, 2)).any(1))
    for own, some in zip(places.split(_TOGETHER * ORDER), beside.split(_TOGETHER), strict=True):
        near = others[some.any(0)]
        if len(near):
            yield own, near, mesh.at(own, near) if of_top else mesh.at(near, own)


def _parts(at: Densities, words: int, log_width: Tensor, log_evidence: Tensor | None = None) -> Iterator[Tensor]:
    """The logarithms of q, the prior and p(x, z), times widths and KL terms' sizes, for each codeword, ``(B, L)``."""
    posterior = {**at.p, "x": at.likelihood}
    for c in range(words):
        q, prior, joint = (
            {name: table[..., min(c, table.shape[-1] - 1)] for name, table in sites.items()}
            for sites in (at.q, at.p, posterior)
        )
        # Where a density is next to nothing its terms may be all the larger, or infinite.
        terms = [
            table.nan_to_num(nan=0.0, posinf=1e300, neginf=1e300).abs() for table in (*q.values(), *joint.values())
        ]
        log_size = log_width + torch.log1p(functools.reduce(torch.add, terms))
        yield log_product(q) + log_size
        yield log_product(prior) + log_size
        yield log_product(joint) + (log_size - (0.0 if log_evidence is None else log_evidence[c]))


def _two_of_each(nodes: int, order: int) -> Tensor:
    """The numbers of two nodes of each panel."""
    quarter = order // 4
    return (torch.arange(0, nodes, order)[:, None] + torch.tensor([quarter, order - 1 - quarter])).flatten()


def _with_neighbours(matters: Tensor) -> Tensor:
    """The same with what is next to it, in rows and in columns."""
    return torch.nn.functional.max_pool2d(matters[None].double(), 3, stride=1, padding=1)[0] > 0.0
