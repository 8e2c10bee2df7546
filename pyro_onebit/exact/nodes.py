"""Where the quadrature's nodes go: grids that resolve what a model and a guide make of the latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.data import ideal_threshold
from pyro_onebit.exact.densities import log_p_x, log_q_z1, log_standard_normal
from pyro_onebit.quadrature import Grid, refine

#: The standard normal's mass beyond is 1e-23.
_PRIOR_EDGES = (-10.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 10.0)


def _landmarks(draws: Tensor) -> Tensor:
    """Panel edges where the mass of ``(draws, conditions)`` lies: quantiles, and steps of the sd."""
    mean, sd = draws.mean(0), draws.std(0)
    steps = torch.tensor([1.5, 3.0, 5.0, 8.0, 12.0], dtype=draws.dtype)[:, None]
    quantiles = draws.quantile(torch.linspace(0, 1, 9, dtype=draws.dtype), 0)
    return torch.cat([quantiles, mean - sd * steps, mean + sd * steps]).flatten()


def _prior_edges(prob: float) -> Tensor:
    """Panel edges for the top latent: the prior's range, and where a codeword's share of it is cut off."""
    cut = ideal_threshold(prob)
    return torch.tensor([*_PRIOR_EDGES, cut, -cut], dtype=torch.float64)


def _edges(*parts: Tensor) -> Tensor:
    """The parts' edges in order, without those that nearly coincide."""
    edges = torch.cat(parts).sort().values
    keep = torch.diff(edges, prepend=edges[:1] - 1.0) > 1e-9 * (1.0 + edges.abs())
    return edges[keep]


def _one_layer_integrands(model: Any, guide: Any, x: Tensor, peak: Tensor, z: Tensor) -> Tensor:
    log_q, log_likelihood = log_q_z1(guide, x, z), log_p_x(model, x, z)
    q = log_q.exp()
    joint = (log_standard_normal(z) + log_likelihood - peak).exp()
    # 0 log 0 is 0 where a guide's support ends.
    return torch.cat([q, q * log_likelihood, torch.where(q > 0, q * log_q, 0.0), joint]).T


def one_layer_grid(model: Any, guide: Any, x: Tensor, prob: float) -> Grid:
    """A grid for z1 that resolves q(z1|x), the exact posterior, and the truncated normal's cut."""
    draws = guide.q_z1(x).sample((1024,)).squeeze(-1)
    edges = _edges(_prior_edges(prob), _landmarks(draws))
    z = Grid(edges).midpoints
    peak = (log_standard_normal(z) + log_p_x(model, x, z)).amax(-1, keepdim=True)
    return refine(partial(_one_layer_integrands, model, guide, x, peak), edges, jumps=True)


def _thinned(mean: Tensor, sd: Tensor) -> Tensor:
    """Panel edges near many narrow densities: enough of their centres, and the gaps' near ends."""
    mean, order = mean.sort()
    kept = [0]
    for i, (m, s) in enumerate(zip(mean.tolist(), sd[order].tolist(), strict=True)):
        if m - float(mean[kept[-1]]) > 2 * s:
            kept.append(i)
    mean, reach = mean[kept], sd[order][kept] * torch.tensor([[4.0], [10.0]], dtype=mean.dtype)
    inf = mean.new_full((1,), torch.inf)
    right = (mean + reach)[mean + reach < torch.cat([mean[1:], inf])]
    left = (mean - reach)[mean - reach > torch.cat([-inf, mean[:-1]])]
    return torch.cat([left, mean, right])


def _centres(conditional: Callable[[Tensor], torch.distributions.Distribution], c: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd, by draws, of a scalar latent given each of the conditions ``(K,)``."""
    draws = conditional(c[:, None]).sample((64,)).squeeze(-1)
    return draws.mean(0), draws.std(0)


def two_layer_grids(model: Any, guide: Any, x: Tensor, prob: float) -> list[Grid]:
    """Grids for z1 and z2 that resolve q(z1|x), p(x|z1), and both conditionals between z1 and z2.

    A conditional is resolved if its slices at the other grid's midpoints are, each weighted by the
    mass it stands for: first z2 at a provisional z1, then z1 at that z2, then z2 at that z1.
    """
    draws = guide.q_z1(x).sample((1024,)).squeeze(-1)
    z2 = torch.linspace(-7.0, 7.0, 281, dtype=x.dtype)
    mean, sd = _centres(model.p_z1, z2)

    def of_z1(z1: Tensor) -> Tensor:
        q, log_likelihood = log_q_z1(guide, x, z1).exp(), log_p_x(model, x, z1)
        return torch.cat([q, q * log_likelihood, log_likelihood.exp()]).T

    def given_z2(grid2: Grid, z1: Tensor) -> Tensor:
        q, likelihood = log_q_z1(guide, x, z1).exp(), log_p_x(model, x, z1).exp()
        middle, mass = grid2.midpoints, grid2.widths
        q_z2 = guide.q_z2(z1[:, None]).log_prob(middle[:, None, None]).exp()
        prior = log_standard_normal(middle).exp()
        p_z1 = model.p_z1(middle[:, None]).log_prob(z1[:, None, None]).T.exp()
        slices = [q[:, None] * (mass[:, None] * q_z2), likelihood[:, None] * ((mass * prior)[:, None] * p_z1)]
        return torch.cat(slices, 1).flatten(0, 1).T

    def given_z1(grid1: Grid) -> Callable[[Tensor], Tensor]:
        middle, mass = grid1.midpoints, grid1.widths
        q = (mass * log_q_z1(guide, x, middle).exp())[:, :, None]
        likelihood = (mass * log_p_x(model, x, middle).exp())[:, :, None]
        conditional = guide.q_z2(middle[:, None])

        def of_z2(z2: Tensor) -> Tensor:
            q_z2 = conditional.log_prob(z2[:, None, None]).T.exp()
            p_z1 = model.p_z1(z2[:, None]).log_prob(middle[:, None, None]).exp()
            prior = log_standard_normal(z2).exp()
            return torch.cat([q * q_z2, likelihood * (prior * p_z1)], 1).flatten(0, 1).T

        return of_z2

    def start_z2(grid1: Grid) -> Tensor:
        mean, sd = _centres(guide.q_z2, grid1.midpoints[_inside(grid1.midpoints, draws)])
        return _edges(_prior_edges(prob), _thinned(mean, sd))

    grid1 = refine(of_z1, _edges(_landmarks(draws), _thinned(mean, sd)))
    grid2 = refine(given_z1(grid1), start_z2(grid1))
    grid1 = refine(partial(given_z2, grid2), grid1.edges)
    grid2 = refine(given_z1(grid1), grid2.edges)
    return [grid1, grid2]


def _inside(z: Tensor, draws: Tensor) -> Tensor:
    """Which of z lie within ten standard deviations of either codeword's draws."""
    return ((z[:, None] - draws.mean(0)).abs() < 10 * draws.std(0)).any(-1)
