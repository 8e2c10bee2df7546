"""All latents together, by quadrature: the joint posterior, the lowest latent's own, and the law of the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.exact.importance_weights import WeightLaw, law_of_one_latent
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.solver import Truth, kl_name
from pyro_onebit.programs import BLOCK, DataLike, Latents, Mesh, Pair, blocks
from pyro_onebit.system import Shown

#: log r is binned in asinh(log r), in steps of this: 0.001 wide at r = 1, 0.1% of log r far out.
_BIN = 1e-3
#: Bins on either side of r = 1, and all of them.
_HALF = int(20.0 / _BIN)
_BINS = 2 * _HALF


@dataclass(frozen=True, repr=False)
class Joint(Shown):
    """All latents z of a model and a guide together; nats, for each codeword.

    With one latent z is it, and `z1` the top latent itself.

    Arguments:
        z1: The lowest latent.
        kl_forward: KL(q(z|x) ‖ p(z|x)), shape ``(M,)``.
        kl_reverse: KL(p(z|x) ‖ q(z|x)), shape ``(M,)``; the EUBO is the log evidence plus this.
        kl1_redrawn: What kl1 would be if z1 were drawn again, from q(z1|x), for its density under
            p(z1|z2), shape ``(M,)``; with one latent, kl1.
        law: The law of the weight p(x, z) / q(z|x).
    """

    z1: Marginal
    kl_forward: Tensor
    kl_reverse: Tensor
    kl1_redrawn: Tensor
    law: WeightLaw

    def shown(self) -> dict[str, Any]:
        """Figures averaged over the data's distribution, nats per datum."""
        tensors = {name: getattr(self, name) for name in ("kl_forward", "kl_reverse", "kl1_redrawn")}
        averages = {name: float(self.law.probs @ value) for name, value in tensors.items()}
        log_evidence = float(self.law.probs @ self.law.log_evidence)
        return {"codewords": len(self.law.probs), "log_evidence": log_evidence, **averages}


@torch.no_grad()
def solve_joint(model: Any, guide: Any, data: DataLike, truth: Truth) -> Joint:
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
            kl1_redrawn=truth.terms[kl_name(truth.latents[0])],
            law=law_of_one_latent(truth),
        )
    return _two_latents(Pair(model, guide, data), truth)


def _two_latents(pair: Pair, truth: Truth) -> Joint:
    (bottom, name), (low, top), words = pair.latents, truth.grids, pair.words
    # What stands below is z1's own: log p(z1) and log p(x, z1), the top latent summed out.
    log_p1, log_joint1 = (
        torch.full((columns, len(low.nodes)), -torch.inf, dtype=torch.float64) for columns in (1, words)
    )
    kl_forward, kl_reverse, redrawn, drawn = torch.zeros(4, words, dtype=torch.float64)
    # Mass under q and under p, and the sum of log r under q, of each bin.
    bins = torch.zeros(3, words, _BINS, dtype=torch.float64)
    mass1, mass2 = truth.q_masses
    for rows, near, at in blocks(pair, truth.grids):
        log_width = top.weights[rows].log()[:, None, None]
        log_p1[:, near] = torch.logaddexp(log_p1[:, near], torch.logsumexp(at.log_prior + log_width, 0).T[:1])
        log_joint1[:, near] = torch.logaddexp(log_joint1[:, near], torch.logsumexp(at.log_joint + log_width, 0).T)
        log_cell = log_width + low.weights[near].log()[:, None]
        log_qs, log_ps = (table.expand(len(rows), -1, words) + log_cell for table in (at.log_q, at.log_joint))
        for c in range(words):
            log_q, log_p = log_qs[..., c], log_ps[..., c] - truth.log_evidence[c]
            log_r = (log_p - log_q).nan_to_num(nan=-torch.inf)
            q, p = log_q.exp(), log_p.exp()
            q_log_r = torch.where(q > 0, q * log_r, 0.0)
            kl_forward[c] -= q_log_r.sum()
            kl_reverse[c] += torch.where(p > 0, p * log_r, 0.0).sum()
            drawn[c] += torch.where(q > 0, q * at.p[bottom][..., 0], 0.0).sum()
            at_bin = ((torch.asinh(log_r) / _BIN).clamp(-_HALF, _HALF - 1).long() + _HALF).flatten()
            for total, values in zip(bins[:, c], (q, p, q_log_r), strict=True):
                total += torch.bincount(at_bin, values.flatten(), _BINS)
    # Latents that are drawn apart may lie anywhere.
    down = pair.given(pair.model, bottom, {name: top.nodes[:, None]})
    for rows in torch.arange(len(top.nodes)).split(max(1, BLOCK // len(low.nodes))):
        conditional = down.only(rows).log_prob(low.nodes)[..., 0].T
        for c in range(words):
            independent = mass2[c, rows, None] * mass1[c]
            redrawn[c] += torch.where(independent > 0, independent * conditional, 0.0).sum()
    log_q1 = (mass1 / low.weights).log()
    lower = Marginal(low, log_p1[0], log_joint1 - log_p1, log_q1, truth.probs)
    kl1 = truth.terms[kl_name(bottom)]
    return Joint(lower, kl_forward, kl_reverse, kl1 + drawn - redrawn, _law(bins, truth))


def _law(bins: Tensor, truth: Truth) -> WeightLaw:
    """The bins' masses as a law whose atoms keep each bin's mean of r."""
    q, p, q_log_r = bins[:, :, (bins[0] > 0).any(0)]
    # Where p underflows r is below e^-700, and its logarithm's mean does.
    log_ratio = torch.where(p > 0, p.log() - q.log(), q_log_r / q)
    return WeightLaw(
        torch.where(q > 0, log_ratio, -torch.inf), q / q.sum(-1, keepdim=True), truth.log_evidence, truth.probs
    )


def draw_posterior(pair: Pair, truth: Truth, count: int) -> Latents:
    """Draws of the exact posterior p(z|x), ``(count, M)`` of each latent, by inverse cdf on the grids of `truth`."""
    top = truth.grid.invert(truth.grid.cumulative(truth.log_posterior.exp()), torch.rand(pair.words, count)).T
    if len(truth.grids) == 1:
        return {truth.latents[0]: top}
    (bottom, name), low = truth.latents, truth.grids[0]
    mesh, drawn = Mesh(pair, low.nodes, truth.grid.nodes), []
    for rows in top.split(max(1, BLOCK // (pair.words * len(low.nodes)))):
        # Of a draw of each codeword's own only its own column counts.
        log_p = mesh.moved(top=rows.flatten()).whole.log_joint.unflatten(0, (len(rows), pair.words))
        own = torch.diagonal(log_p, dim1=1, dim2=3).movedim(-1, 1)
        density = (own - own.amax(-1, keepdim=True)).exp()
        share = torch.rand(len(rows), pair.words, 1)
        drawn.append(low.invert(low.cumulative(density).flatten(0, 1), share.flatten(0, 1)).reshape(len(rows), -1))
    return {name: top, bottom: torch.cat(drawn)}
