"""Where the quadrature's nodes go: grids that resolve what a model and a guide make of their latents.

A grid cannot see what lies outside of its range, or between its nodes. So places to look come from the densities, on
panels that widen like sinh(t) as far as 10^19, and from draws; and afterwards densities must integrate to one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_onebit.exact.densities import Densities, Pair
from pyro_onebit.exact.programs import Program
from pyro_onebit.exact.sums import Product
from pyro_onebit.quadrature import Grid, merge, refine

#: Steps of t, and how far it goes around each codeword's draws.
_STEP, _NEAR = 0.5, 4.0
#: How far t goes: to some 10^19, and if that is not the end, to 10^147, whose square is still a number.
_FAR = (45.0, 340.0)
#: Draws of each codeword that say where to look, and those that look for what is missing.
_DRAWS, _MORE_DRAWS = 4096, 100_000
#: Draws of a conditional at each of its conditions.
_OWN_DRAWS = 32
#: Logarithms of shares of a total, below which a panel does not matter: of q's, the posterior's, the prior's.
_FAINT_Q, _FAINT_POSTERIOR, _FAINT_PRIOR = -37.0, -45.0, -32.0
#: Points at which a likelihood is looked at for what is narrow, at most and at least, and numbers that it may take.
_POINTS, _FEWEST, _LOOKED_AT = 2**16, 2**8, 2**22
#: Panels of a single latent, at most, and pairs of panels of two: more take minutes.
_MOST, _MOST_PAIRS = 40_000, 250_000
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
        self.draws = _draws_of(pair, _DRAWS)
        self._halvings = 0
        for far in _FAR:
            self.edges, self.log_evidence, is_all = _look_around(pair, self.draws, far)
            if is_all:
                break

    def look_harder(self) -> None:
        """Draw more, for what is narrow and rare, and look at one latent at more places of the other."""
        self._halvings = 2
        self.draws = _draws_of(self.pair, _MORE_DRAWS)
        self.edges = [_edges(edges, _beyond(own)) for edges, own in zip(self.edges, self.draws, strict=True)]
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
        return (*map(Grid, self.edges[:-1]), Grid(_edges(self.edges[-1], self._thresholds())))

    def _add(self, edges: list[Tensor]) -> None:
        self.edges = [_edges(old, new) for old, new in zip(self.edges, edges, strict=True)]

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
                self._refine(axis)
            if turn + 1 >= len(self.edges) and (self.log_evidence - before).abs().max() < 0.5:
                break

    def _refine(self, axis: int) -> None:
        """Refine one latent's panels."""
        integrands = self._integrands(axis)
        single = len(self.edges) == 1
        most = _MOST if single else _MOST_PAIRS // len(self.edges[1 - axis])
        panels = refine(integrands, self.edges[axis], jumps=single, most=most).without_empty_ends()
        # On a mesh every node counts as often as the other latent has nodes.
        self.edges[axis] = panels.edges if single else merge(integrands, panels)
        posterior = panels.integrals[:, -self.pair.words :].sum(0)
        self.log_evidence = self.log_evidence + posterior.log().nan_to_num(neginf=0.0)

    def _integrands(self, axis: int) -> Callable[[Tensor], Tensor]:
        """What one latent's panels are to resolve, at the middles of the other's, which stand for their panels' masses.

        The densities, and what KL(q ‖ p) and KL(p ‖ q) are integrals of; the last M functions are the posteriors.
        """
        pair, single, words = self.pair, len(self.edges) == 1, self.pair.words
        others = Grid(torch.tensor([-0.5, 0.5], dtype=torch.float64)) if single else Grid(self.edges[1 - axis])
        for _ in range(0 if single else self._halvings):
            others = others.halved()
        middles, widths = others.midpoints, others.widths
        is_top = single or axis == 1
        slab = pair.slab(middles) if is_top else None

        def integrands(z: Tensor) -> Tensor:
            at = slab(z) if slab is not None else pair.slab(z)(middles)
            ones = torch.ones_like(z)
            weights = (ones, widths) if is_top else (widths, ones)
            q = Product(at.q, *weights, words)
            prior = Product(at.p, *weights, words)
            posterior = prior.times("x", at.likelihood - self.log_evidence)
            log_q, log_p = list(at.q.values()), [*at.p.values(), at.likelihood]
            gap = [*((1.0, table) for table in log_q), *((-1.0, table) for table in log_p)]
            one, axis = [(1.0, torch.ones(1, 1, 1, dtype=z.dtype))], 0 if is_top else 1
            sums = [*q.sums(one, gap), *prior.sums(one), *posterior.sums(gap, one)]
            # Of slices one function each: parts that are all positive do not hide each other.
            slices = q.total() + posterior.total() + prior.total()
            # Where the prior has nothing and q has something their ratio is infinite, and no panels help.
            kinds = [pair[axis].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for pair in sums]
            return torch.cat([slices if is_top else slices.T, *kinds], 1)

        return integrands


def _draws_of(pair: Pair, count: int) -> list[Tensor]:
    """Draws of each latent, the lowest first, ``(count, M + 1)``: of q for each codeword, and of the prior."""
    of_q, of_p = pair.draw(pair.guide, count), pair.draw(pair.model, count)
    draws = [torch.cat([of_q[name], of_p[name][:, :1]], 1) for name in pair.latents]
    for name, values in zip(pair.latents, draws, strict=True):
        if not torch.isfinite(values).all():
            whose = "guide" if not torch.isfinite(values[:, :-1]).all() else "model"
            raise ArithmeticError(f"draws of {name} by the {whose} are not finite")
    return draws


def _lattice(draws: Tensor, far: float) -> Tensor:
    """Panel edges that widen like sinh(t) around each column's middle, around the last one's as far as `far`."""
    middle = draws.median(0).values
    low, high = draws.quantile(torch.tensor([0.16, 0.84], dtype=draws.dtype), 0)
    scale = (0.5 * (high - low)).clamp_min(1e-12)
    near, wide = (torch.arange(-reach, reach + 0.5 * _STEP, _STEP, dtype=draws.dtype).sinh() for reach in (_NEAR, far))
    around = middle[:-1] + scale[:-1] * near[:, None]
    return _edges(around.flatten(), middle[-1] + scale[-1] * wide)


def _edges(*parts: Tensor) -> Tensor:
    """The parts' edges in order, without those that nearly coincide."""
    edges = torch.cat(parts).sort().values
    keep = torch.diff(edges, prepend=edges[:1] - 1.0) > 1e-12 * (1e-3 + edges.abs())
    return edges[keep]


def _quantiles(draws: Tensor) -> Tensor:
    """Panel edges where the draws' mass lies."""
    return draws.quantile(torch.linspace(0, 1, 9, dtype=draws.dtype), 0).flatten()


def _beyond(draws: Tensor) -> Tensor:
    """As far beyond the outermost draws as the densities may reach: many times what separates the last few."""
    z, few = draws.sort(0).values, 32
    return torch.cat([z[0] - 16.0 * (z[few] - z[0]), z[-1] + 16.0 * (z[-1] - z[-few - 1])])


def _clusters(draws: Tensor, edges: Tensor) -> Tensor:
    """Panel edges around places where draws lie far closer than elsewhere in their panel."""
    near, found = 4, []
    for column in draws.T:
        z = column.sort().values
        spacing = (z[near:] - z[:-near]).clamp_min(1e-300) / near
        middle = z[near // 2 : -near // 2]
        panel = torch.searchsorted(edges, middle).clamp(1, len(edges) - 1)
        own = (edges[panel] - edges[panel - 1]) / torch.bincount(panel, minlength=len(edges))[panel]
        ratio = spacing / own
        for _ in range(64):
            i = int(ratio.argmin())
            if float(ratio[i]) > 0.02:
                break
            reach = spacing[i] * torch.tensor([1.0, 4.0, 16.0, 64.0, 1024.0], dtype=z.dtype)
            found += [middle[i] - reach, middle[i] + reach, middle[i : i + 1]]
            ratio[(middle - middle[i]).abs() < 64.0 * spacing[i]] = torch.inf
    return torch.cat(found) if found else draws.new_zeros(0)


def _finite(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _look_around(pair: Pair, draws: list[Tensor], far: float) -> tuple[list[Tensor], Tensor, bool]:
    """Each latent's range and first panels, from the densities on a wide lattice and from draws.

    And what that says of the log evidence, ``(M,)``, by which the posterior is scaled, and whether nothing was found
    where the lattice ends.
    """
    lattices = [_lattice(own, far) for own in draws]
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in lattices]
    log_widths = [torch.diff(edges).log() for edges in lattices]
    single = len(lattices) == 1
    dummy = torch.zeros(1, dtype=torch.float64)
    at = pair.slab(dummy if single else middles[0])(middles[-1])
    log_width = log_widths[-1][:, None, None] + (dummy if single else log_widths[0])[:, None]
    terms = sum(_finite(site).abs() for site in (*at.q.values(), *at.p.values(), at.likelihood))
    in_q = at.log_q + log_width + torch.log1p(torch.as_tensor(terms))
    posterior = at.log_joint + log_width
    log_evidence = torch.logsumexp(posterior, (0, 1))
    posterior = posterior - log_evidence + torch.log1p(_finite(at.log_q).abs().clamp_max(1e4))
    in_prior = at.log_prior + log_width
    matters = (in_q > _FAINT_Q).any(-1) | (posterior > _FAINT_POSTERIOR).any(-1) | (in_prior > _FAINT_PRIOR).any(-1)
    kept = [matters.any(0), matters.any(1)] if not single else [matters.any(1)]
    found = [[_beyond(own)] for own in draws]
    landmarks: list[list[Tensor]] = [
        [_quantiles(own), _clusters(own, edges)] for own, edges in zip(draws, lattices, strict=True)
    ]
    if not single:
        for program in (pair.guide, pair.model):
            first = pair.latents.index(program.latents[0])
            edges, reach = _ridge(
                pair, program, middles[first], log_widths[first], at if program is pair.model else None
            )
            landmarks[1 - first].append(edges)
            found[1 - first].append(reach)
    all_edges = []
    for edges, keep, own, marks in zip(lattices, kept, found, landmarks, strict=True):
        lattice_ends = torch.cat([edges[:-1][keep], edges[1:][keep]])
        ends = torch.cat([lattice_ends, *own])
        inside = edges[(edges >= ends.min()) & (edges <= ends.max())]
        inner = [m[(m > ends.min()) & (m < ends.max())] for m in marks]
        all_edges.append(_edges(ends.min()[None], ends.max()[None], inside, *inner))
    if single or not pair.x_needs_top:
        all_edges[0] = _edges(all_edges[0], _kinks(pair, draws[0], all_edges[0]))
    is_all = not any(bool(keep[0] | keep[-1]) for keep in kept)
    return all_edges, log_evidence.nan_to_num(neginf=0.0), is_all


def _ridge(
    pair: Pair, program: Program, nodes: Tensor, log_width: Tensor, mesh: Densities | None
) -> tuple[Tensor, Tensor]:
    """Panel edges, and how far they must reach, for a latent that is narrow given another one at `nodes`."""
    name, second = program.latents
    first = pair.first(program).log_prob(nodes).squeeze(1)
    repeated = nodes.repeat_interleave(_OWN_DRAWS)[:, None].expand(-1, pair.words)
    values = pair.draw(program, len(repeated), {name: repeated})
    own = values[second].unflatten(0, (-1, _OWN_DRAWS))
    weight = first + log_width[:, None]
    if mesh is None:
        at = pair.at(values, torch.zeros(len(repeated), pair.words, dtype=torch.float64))
        terms = sum(_finite(site).abs() for site in (*at.q.values(), *at.p.values()))
        weight = weight + torch.log1p(torch.as_tensor(terms).unflatten(0, (-1, _OWN_DRAWS)).mean(1))
        keep = weight > _FAINT_Q
    else:
        keep = weight > _FAINT_PRIOR
        # A likelihood may favour what the prior does not.
        posterior = (mesh.log_joint.amax(1) + log_width[:, None]).nan_to_num(nan=-torch.inf)
        keep = keep | (posterior - posterior.amax(0) > _FAINT_POSTERIOR).any(-1, keepdim=True)
    keep = keep.expand(own.shape[0], own.shape[2])
    mean, sd = own.mean(1)[keep], own.std(1)[keep]
    sane = torch.isfinite(mean) & torch.isfinite(sd) & (sd > 0)
    mean, sd = mean[sane], sd[sane]
    if not len(mean):
        return nodes.new_zeros(0), nodes.new_zeros(0)
    return _thinned(mean, sd), torch.stack([(mean - 12.0 * sd).min(), (mean + 12.0 * sd).max()])


def _thinned(mean: Tensor, sd: Tensor) -> Tensor:
    """Panel edges near many narrow densities: enough of their centres, and the gaps' near ends."""
    mean, order = mean.sort()
    kept = [0]
    for i, (m, s) in enumerate(zip(mean.tolist(), sd[order].tolist(), strict=True)):
        if m - float(mean[kept[-1]]) > 4 * s:
            kept.append(i)
    mean, reach = mean[kept], sd[order][kept] * torch.tensor([[4.0], [10.0]], dtype=mean.dtype)
    inf = mean.new_full((1,), torch.inf)
    right = (mean + reach)[mean + reach < torch.cat([mean[1:], inf])]
    left = (mean - reach)[mean - reach > torch.cat([-inf, mean[:-1]])]
    return torch.cat([left, mean, right])


def _kinks(pair: Pair, draws: Tensor, edges: Tensor) -> Tensor:
    """Panel edges where the likelihood bends between one point and the next, which few nodes may not notice."""
    points = min(_POINTS, _LOOKED_AT // pair.x.numel())
    if points < _FEWEST:
        return edges[:0]
    low, high = draws.min(), draws.max()
    reach = 0.1 * (high - low)
    z = torch.linspace(
        float(max(low - reach, edges[0])), float(min(high + reach, edges[-1])), points, dtype=draws.dtype
    )
    rest = dict.fromkeys(pair.latents[1:], 0.0 * z[:, None])
    likelihood = pair.likelihood({pair.latents[0]: z[:, None], **rest})
    bend = torch.zeros_like(likelihood)
    bend[1:-1] = (likelihood[2:] - 2.0 * likelihood[1:-1] + likelihood[:-2]).abs()
    bend = bend.nan_to_num(nan=0.0, posinf=0.0)
    bend[likelihood < likelihood.amax(0) + _FAINT_POSTERIOR] = 0.0
    bend = bend.amax(-1)
    peak = torch.zeros_like(bend, dtype=torch.bool)
    peak[1:-1] = (bend[1:-1] > 0.1) & (bend[1:-1] >= bend[2:]) & (bend[1:-1] >= bend[:-2])
    [at] = torch.nonzero(peak, as_tuple=True)
    at = at[bend[at].argsort(descending=True)[:64]]
    step = z[1] - z[0]
    return torch.cat([z[at], z[at] - 2.0 * step, z[at] + 2.0 * step])
