"""Both latents together, by quadrature: the joint posterior, z1's own, and the law of the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.data import OneBitData
from pyro_onebit.exact.densities import BLOCK, GuideLike, Latents, ModelLike, float64_copy, log_p_x, log_q_z1
from pyro_onebit.exact.importance_weights import WeightLaw, law_of_one_latent
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.solver import Truth

#: log r is binned in asinh(log r), in steps of this: 0.001 wide at r = 1, 0.1% of log r far out.
_BIN = 1e-3
_BINS = 2 * int(20.0 / _BIN)


@dataclass(frozen=True)
class Joint:
    """All latents z of a model and a guide together; nats, for each codeword.

    With one layer z is z1, and `z1` the top latent itself.

    Arguments:
        z1: The lowest latent.
        kl_forward: KL(q(z|x) ‖ p(z|x)), shape ``(2,)``.
        kl_reverse: KL(p(z|x) ‖ q(z|x)), shape ``(2,)``; the EUBO is the log evidence plus this.
        kl1_redrawn: What kl1 would be if z1 were drawn anew, from q(z1|x), for its density under
            p(z1|z2), shape ``(2,)``; with one layer, kl1.
        law: The law of the weight p(x, z) / q(z|x).
    """

    z1: Marginal
    kl_forward: Tensor
    kl_reverse: Tensor
    kl1_redrawn: Tensor
    law: WeightLaw


@torch.no_grad()
def solve_joint(model: ModelLike, guide: GuideLike, data: OneBitData, truth: Truth) -> Joint:
    """Tabulate all latents together.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords and their probabilities.
        truth: Their `solve`, whose grids are used.
    """
    if len(truth.grids) == 1:
        return Joint(
            truth,
            kl_forward=truth.under_q(truth.log_q - truth.log_posterior),
            kl_reverse=truth.under(truth.log_posterior, truth.log_posterior - truth.log_q),
            kl1_redrawn=truth.terms["kl1"],
            law=law_of_one_latent(truth),
        )
    return _two_layers(float64_copy(model), float64_copy(guide), data.codewords.double(), truth)


def _two_layers(model: Any, guide: Any, x: Tensor, truth: Truth) -> Joint:
    grid1, grid2 = truth.grids
    z1, z2 = grid1.nodes, grid2.nodes
    log_q1, log_likelihood = log_q_z1(guide, x, z1), log_p_x(model, x, z1)
    # log of the mass that a node stands for, but for the factors that join z1 and z2
    log_mass_q = grid1.weights.log() + log_q1
    log_mass_p = grid1.weights.log() + log_likelihood - truth.log_evidence[:, None]
    mass_q = log_mass_q.exp()
    q_z2 = guide.q_z2(z1[:, None])
    top_q = grid2.weights * truth.log_q.exp()
    log_p1_marginal = torch.full_like(z1, -torch.inf)
    kl_forward, kl_reverse, redrawn = torch.zeros(3, 2, dtype=z1.dtype)
    # Mass under q and under p, and the sum of log r under q, of each bin.
    bins = torch.zeros(3, 2, _BINS, dtype=z1.dtype)
    for rows in torch.arange(len(z2)).split(max(1, BLOCK // len(z1))):
        log_width = grid2.weights[rows, None].log()
        log_q2 = q_z2.log_prob(z2[rows, None, None]) + log_width
        log_p1 = model.p_z1(z2[rows, None]).log_prob(z1[:, None, None]).T
        log_joint = log_p1 + (log_width + truth.log_prior[rows, None])
        log_p1_marginal = torch.logaddexp(log_p1_marginal, torch.logsumexp(log_joint, 0))
        for c in range(2):
            log_q, log_p = log_q2 + log_mass_q[c], log_joint + log_mass_p[c]
            log_r = log_p - log_q
            q, p = log_q.exp(), log_p.exp()
            q_log_r = q * log_r
            kl_forward[c] -= q_log_r.sum()
            kl_reverse[c] += (p * log_r).sum()
            redrawn[c] -= top_q[c, rows] @ (log_p1 @ mass_q[c])
            at = ((torch.asinh(log_r) / _BIN).long() + _BINS // 2).clamp(0, _BINS - 1).flatten()
            for total, values in zip(bins[:, c], (q, p, q_log_r), strict=True):
                total += torch.bincount(at, values.flatten(), _BINS)
    lower = Marginal(grid1, log_p1_marginal, log_likelihood, log_q1, truth.probs)
    entropy = -(mass_q * log_q1).sum(-1)
    return Joint(lower, kl_forward, kl_reverse, redrawn - entropy, _law(bins, truth))


def _law(bins: Tensor, truth: Truth) -> WeightLaw:
    """The bins' masses as a law whose atoms keep each bin's mean of r."""
    q, p, q_log_r = bins[:, :, (bins[0] > 0).any(0)]
    # Where p underflows r is below e^-700, and its logarithm's mean does.
    log_ratio = torch.where(p > 0, p.log() - q.log(), q_log_r / q)
    return WeightLaw(
        torch.where(q > 0, log_ratio, -torch.inf), q / q.sum(-1, keepdim=True), truth.log_evidence, truth.probs
    )


def draw_posterior(model: Any, x: Tensor, truth: Truth, count: int) -> Latents:
    """Draws of the exact posterior p(z|x), by inverse cdf on the grids of `truth`; float64."""
    top = truth.grid.invert(truth.grid.cumulative(truth.log_posterior.exp()), torch.rand(2, count)).T
    if len(truth.grids) == 1:
        return {"z1": top[..., None]}
    grid1 = truth.grids[0]
    log_lik = log_p_x(model, x, grid1.nodes)
    z1 = []
    for codeword in range(2):
        for z2 in top[:, codeword].split(max(1, BLOCK // len(grid1.nodes))):
            log_p = model.p_z1(z2[:, None]).log_prob(grid1.nodes[:, None, None]).T + log_lik[codeword]
            density = (log_p - log_p.amax(-1, keepdim=True)).exp()
            z1.append(grid1.invert(grid1.cumulative(density), torch.rand(len(z2), 1)).squeeze(-1))
    return {"z1": torch.cat(z1).reshape(2, count).T[..., None], "z2": top[..., None]}
