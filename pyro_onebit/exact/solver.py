"""The top latent's densities and the terms of the loss, tabulated by quadrature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.data import OneBitData
from pyro_onebit.exact.densities import (
    BLOCK,
    GuideLike,
    ModelLike,
    float64_copy,
    log_p_x,
    log_q_z1,
    log_standard_normal,
)
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.nodes import one_layer_grid, two_layer_grids
from pyro_onebit.quadrature import Grid

#: Doubling the nodes goes on until no figure changes by more than this: in nats, and above one nat,
#: which only untrained models cost, relative to the figure.
TOLERANCE = 1e-7
_MAX_DOUBLINGS = 3


@dataclass(frozen=True)
class Truth(Marginal):
    """The top latent on a grid, for each codeword, and the terms of the loss.

    Arguments:
        grids: The grids of z1 and, with two layers, z2; the last is the top latent's.
        terms: recon, kl1 (and kl2) of each codeword, each of shape ``(2,)``.
        errors: By how much each of `figures` changed when the nodes doubled.
    """

    grids: tuple[Grid, ...]
    terms: dict[str, Tensor]
    errors: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """All exact figures, averaged over the data's distribution, in nats per datum."""
        mean = lambda per_codeword: float(self.probs @ per_codeword)  # noqa: E731
        terms = {name: mean(value) for name, value in self.terms.items()}
        return {
            "loss": sum(terms.values()),
            **terms,
            "log_evidence": mean(self.log_evidence),
            "kl_posterior": mean(self.under_q(self.log_q - self.log_posterior)),
            "mutual_information": mean(self.under_q(self.log_q - self.log_aggregate)),
            "kl_aggregate": mean(self.under_q(self.log_aggregate - self.log_prior)),
        }


@torch.no_grad()
def solve(model: ModelLike, guide: GuideLike, data: OneBitData) -> Truth:
    """Tabulate the top latent of a model and a guide.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords and their probabilities.

    Raises:
        ArithmeticError: If a density or a likelihood is not finite, or the figures do not settle.
    """
    double_model, double_guide, x = float64_copy(model), float64_copy(guide), data.codewords.double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # draws only say where to put nodes; the same ones each time
        if hasattr(double_model, "p_z1"):
            grids = two_layer_grids(double_model, double_guide, x, data.prob)
        else:
            grids = [one_layer_grid(double_model, double_guide, x, data.prob)]
    truth = tabulate(double_model, double_guide, data, grids)
    for _ in range(_MAX_DOUBLINGS):
        grids = [grid.halved() for grid in grids]
        coarse, truth = truth.figures(), tabulate(double_model, double_guide, data, grids)
        errors = {name: abs(value - coarse[name]) for name, value in truth.figures().items()}
        if all(error <= TOLERANCE * max(1.0, abs(coarse[name])) for name, error in errors.items()):
            truth.errors.update(errors)
            return truth
    raise ArithmeticError(f"quadrature did not settle: doubling the nodes still changes figures by {errors}")


@torch.no_grad()
def tabulate(model: ModelLike, guide: GuideLike, data: OneBitData, grids: Sequence[Grid]) -> Truth:
    """The same on given grids, of z1 and with two layers of z2; whether they resolve it is the caller's to know."""
    probs = torch.tensor([1.0 - data.prob, data.prob], dtype=torch.float64)
    table = _one_layer if len(grids) == 1 else _two_layers
    return table(float64_copy(model), float64_copy(guide), data.codewords.double(), probs, *grids)


def _one_layer(model: Any, guide: Any, x: Tensor, probs: Tensor, grid: Grid) -> Truth:
    z = grid.nodes
    truth = Truth(
        grid, log_standard_normal(z), log_p_x(model, x, z), log_q_z1(guide, x, z), probs, grids=(grid,), terms={}
    )
    truth.terms["recon"] = truth.under_q(-truth.log_likelihood)
    truth.terms["kl1"] = truth.under_q(truth.log_q - truth.log_prior)
    return truth


def _two_layers(model: Any, guide: Any, x: Tensor, probs: Tensor, grid1: Grid, grid2: Grid) -> Truth:
    z1, w1, z2, w2 = grid1.nodes, grid1.weights, grid2.nodes, grid2.weights
    log_q1, log_likelihood = log_q_z1(guide, x, z1), log_p_x(model, x, z1)
    weighted_q1 = w1 * log_q1.exp()
    weighted_joint = w1.log() + log_likelihood
    log_prior = log_standard_normal(z2)
    q_z2 = guide.q_z2(z1[:, None])
    log_q, log_l = [], []
    cross = torch.zeros_like(z1)  # E[log p(z1|z2)] under q(z2|z1)
    kl2 = torch.zeros_like(z1)  # KL(q(z2|z1) || p(z2))
    for rows in torch.arange(len(z2)).split(max(1, BLOCK // len(z1))):
        log_q2 = q_z2.log_prob(z2[rows, None, None])
        log_p1 = model.p_z1(z2[rows, None]).log_prob(z1[:, None, None]).T
        q2 = log_q2.exp()
        weighted_q2 = w2[rows, None] * q2
        log_q.append(_log_mixture(weighted_q1, q2, log_q1 + w1.log(), log_q2))
        log_l.append(torch.stack([torch.logsumexp(log_p1 + joint, -1) for joint in weighted_joint]))
        cross += torch.where(q2 > 0, weighted_q2 * log_p1, 0.0).sum(0)
        kl2 += torch.where(q2 > 0, weighted_q2 * (log_q2 - log_prior[rows, None]), 0.0).sum(0)
    terms = {
        "recon": -(weighted_q1 * log_likelihood).sum(-1),
        "kl1": (weighted_q1 * (log_q1 - cross)).sum(-1),
        "kl2": weighted_q1 @ kl2,
    }
    return Truth(grid2, log_prior, torch.cat(log_l, -1), torch.cat(log_q, -1), probs, (grid1, grid2), terms)


def _log_mixture(weights: Tensor, densities: Tensor, log_weights: Tensor, log_densities: Tensor) -> Tensor:
    """log of the mixtures ``weights @ densities.T``, ``(2, N)`` and ``(M, N)``, also where they underflow."""
    log_mixture = (weights @ densities.T).log()
    for codeword, m in torch.nonzero(torch.isinf(log_mixture)).tolist():
        log_mixture[codeword, m] = torch.logsumexp(log_weights[codeword] + log_densities[m], -1)
    return log_mixture
