"""Where to look: ranges and first panels, from densities on a wide lattice and from draws."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_onebit.programs import Densities, Mesh, Pair, Program

#: Steps of t, and how far it goes around each codeword's draws.
_STEP, _NEAR = 0.6, 4.2
#: Draws of a conditional at each of its conditions.
_OWN_DRAWS = 32
#: Logarithms of shares of a total, below which a panel does not matter: of q's, the posterior's, the prior's.
_FAINT_Q, _FAINT_POSTERIOR, _FAINT_PRIOR = -37.0, -45.0, -32.0
#: Points at which a likelihood is looked at for what is narrow, at most and at least, and numbers that it may take.
_POINTS, _FEWEST, _LOOKED_AT = 2**15, 2**8, 2**22


def draws_of(pair: Pair, count: int) -> list[Tensor]:
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
    return distinct(around.flatten(), middle[-1] + scale[-1] * wide)


def distinct(*parts: Tensor) -> Tensor:
    """The parts' edges in order, without those that nearly coincide."""
    edges = torch.cat(parts).sort().values
    keep = torch.diff(edges, prepend=edges[:1] - 1.0) > 1e-12 * (1e-3 + edges.abs())
    return edges[keep]


def _quantiles(draws: Tensor) -> Tensor:
    """Panel edges where the draws' mass lies."""
    return draws.quantile(torch.linspace(0, 1, 9, dtype=draws.dtype), 0).flatten()


def beyond(draws: Tensor) -> Tensor:
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


def look_around(pair: Pair, draws: list[Tensor], far: float) -> tuple[list[Tensor], Tensor, bool]:
    """Each latent's range and first panels, from the densities on a wide lattice and from draws.

    And what that says of the log evidence, ``(M,)``, by which the posterior is scaled, and whether nothing was found
    where the lattice ends.
    """
    lattices = [_lattice(own, far) for own in draws]
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in lattices]
    log_widths = [torch.diff(edges).log() for edges in lattices]
    single = len(lattices) == 1
    dummy = torch.zeros(1, dtype=torch.float64)
    at = Mesh(pair, dummy if single else middles[0], middles[-1]).whole
    log_width = log_widths[-1][:, None, None] + (dummy if single else log_widths[0])[:, None]
    terms = sum(_finite(site).abs() for site in (*at.q.values(), *at.p.values(), at.likelihood))
    in_q = at.log_q + log_width + torch.log1p(torch.as_tensor(terms))
    posterior = at.log_joint + log_width
    log_evidence = torch.logsumexp(posterior, (0, 1))
    posterior = posterior - log_evidence + torch.log1p(_finite(at.log_q).abs().clamp_max(1e4))
    in_prior = at.log_prior + log_width
    matters = (in_q > _FAINT_Q).any(-1) | (posterior > _FAINT_POSTERIOR).any(-1) | (in_prior > _FAINT_PRIOR).any(-1)
    kept = [matters.any(0), matters.any(1)] if not single else [matters.any(1)]
    found = [[beyond(own)] for own in draws]
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
        all_edges.append(distinct(ends.min()[None], ends.max()[None], inside, *inner))
    if single or not pair.x_needs_top:
        all_edges[0] = distinct(all_edges[0], _kinks(pair, draws[0], all_edges[0]))
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
