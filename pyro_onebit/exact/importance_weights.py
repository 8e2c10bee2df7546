r"""The exact law of an importance weight, and what Monte Carlo bounds are expected to give.

For draws from q the weight is :math:`w = p(x, z) / q(z \mid x)`, and :math:`r = w / p(x)` has mean 1.
Everything that importance sampling does with K draws depends on the law of r alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.errors import InputError
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.programs import BLOCK
from pyro_onebit.quadrature import Grid, refine

#: The integral over log s starts where K s is e^-45: both of its terms are then 1 to 1e-19.
_BELOW = 45.0
#: Where log s is beyond this, only draws of next to no weight still count.
_FAR = 50.0
#: The most steps of them that are told apart.
_STEPS = 1024
#: Orders closer to 1 than this are that far from it to first order: what is left out is of its square.
_NEAR_ONE = 1e-5


@dataclass(frozen=True)
class WeightLaw:
    """The law of r under q(z|x) and under p(z|x), as atoms, for each codeword.

    Arguments:
        log_ratio: log r of each atom, shape ``(M, atoms)``.
        q: Its probability under q, shape ``(M, atoms)``.
        log_evidence: log p(x), nats, shape ``(M,)``.
        probs: The codewords' probabilities, shape ``(M,)``.
    """

    log_ratio: Tensor
    q: Tensor
    log_evidence: Tensor
    probs: Tensor

    @property
    def variance(self) -> Tensor:
        """Var(r) under q, shape ``(M,)``: in truth it is infinite if the tail index is 1/2 or more.

        Then the figure says how far out the grid goes, and no more.
        """
        return torch.logsumexp(self.q.log() + 2.0 * self.log_ratio, -1).exp() - 1.0

    def expected_bound(self, particles: Sequence[int], alpha: float = 0.0) -> Tensor:
        r"""The expectation of the importance-weighted (Rényi) bound, exactly.

        :math:`L_{\alpha,K} = \frac{1}{1-\alpha} E \ln \frac1K \sum_k w_k^{1-\alpha}` (Li and Turner 2016);
        alpha 0 is IWAE_K (Burda, Grosse and Salakhutdinov 2016), alpha 1 the ELBO. For positive
        :math:`v_k` of any law, with :math:`\varphi(s) = E e^{-s v}`,

        .. math:: E \ln \frac1K \sum_k v_k = \int_0^\infty (e^{-K s} - \varphi(s)^K) \frac{ds}{s},

        an integral over :math:`\ln s` that is the same for every K but for the power.

        Arguments:
            particles: Values of K, each at least 1.
            alpha: The order.

        Returns:
            Nats, shape ``(len(particles), M)``.

        Raises:
            InputError: If a value of K is below 1 or no finite number, or `alpha` is not finite.
        """
        for k in particles:
            if isinstance(k, bool) or not isinstance(k, (int, float)) or not 1 <= k < math.inf:
                raise InputError(f"particles has {k!r}; each must be a number, at least 1")
        if not math.isfinite(alpha):
            raise InputError(f"alpha is {alpha!r}; it must be a finite number")
        ks = torch.tensor([float(k) for k in particles], dtype=torch.float64)
        # Of a single draw the logarithm's mean needs no integral, and at alpha 1 K does not matter.
        elbo = self.limit(1.0).expand(len(ks), -1)
        if not (ks > 1).any():
            return elbo
        if abs(1.0 - alpha) < _NEAR_ONE:
            # Dividing by 1 - alpha would leave no digits. To first order in it the bound is a variance above the ELBO.
            mean = (self.q * self._log_r).sum(-1, keepdim=True)
            spread = (self.q * (self._log_r - mean).square()).sum(-1)
            return elbo + 0.5 * (1.0 - alpha) * (1.0 - 1.0 / ks)[:, None] * spread
        columns = []
        for log_r, q in zip(self.log_ratio, self.q, strict=True):
            log_v = (1.0 - alpha) * log_r[q > 0]
            mass = q[q > 0]
            # Any scale will do; with mean 1 the two terms agree to first order where s is small.
            scale = torch.logsumexp(log_v + mass.log(), 0)
            columns.append((scale + _expected_log_mean(log_v - scale, mass, ks[ks > 1])) / (1.0 - alpha))
        bounds = elbo.clone()
        bounds[ks > 1] = self.log_evidence + torch.stack(columns, 1)
        return bounds

    def limit(self, alpha: float = 0.0) -> Tensor:
        r"""What the bound tends to as K grows: :math:`\ln p(x) - D_\alpha(q \,\|\, p)`, nats, shape ``(M,)``.

        At alpha 1, where K does not matter, the ELBO.
        """
        if alpha == 1.0:
            return self.log_evidence + (self.q * self._log_r).sum(-1)
        moment = torch.logsumexp(self.q.log() + (1.0 - alpha) * self._log_r, -1)
        return self.log_evidence + moment / (1.0 - alpha)

    @property
    def _log_r(self) -> Tensor:
        """log r of each atom; of one without mass, which may be infinitely far out, 0."""
        return torch.where(self.q > 0, self.log_ratio, 0.0)

    def quantiles(self, count: int) -> Tensor:
        """log r at the probabilities (i + 1/2) / count under q, ascending, shape ``(count, M)``: an ideal sample."""
        log_above = np.log((count - 0.5 - np.arange(count)) / count)
        columns = []
        for log_r, q in zip(self.log_ratio.numpy(), self.q.numpy(), strict=True):
            order = np.argsort(log_r)
            # Above an atom lies what comes after it, and half of itself. The tail is nearly a power law:
            # straight in the logarithms of r and of the mass above.
            above = np.cumsum(q[order][::-1])[::-1] - 0.5 * q[order]
            columns.append(np.interp(-log_above, -np.log(np.maximum(above, 1e-300)), log_r[order]))
        return torch.from_numpy(np.stack(columns, 1))


def law_of_one_latent(latent: Marginal) -> WeightLaw:
    """The law of the weight of a model with a single latent: one atom per node, of 32 times as many nodes as it has.

    Quantiles far out lie between a tail's few nodes.
    """
    fine = latent.grid
    for _ in range(5):
        fine = fine.halved()
    panels = len(latent.grid.edges) - 1
    near = torch.arange(len(latent.z)).repeat_interleave(32)
    tables = []
    for log_density in (latent.log_q, latent.log_posterior):
        rows = []
        for own in log_density:
            # A panel in which a density vanishes has no polynomial in logarithms.
            whole = torch.isfinite(own).reshape(panels, -1).all(1).repeat_interleave(len(fine.nodes) // panels)
            between = latent.grid.interpolated(torch.where(torch.isfinite(own), own, 0.0), fine.nodes)
            rows.append(torch.where(whole & torch.isfinite(between), between, own[near]))
        tables.append(torch.stack(rows))
    log_q, log_p = tables
    q = log_q.exp() * fine.weights
    log_ratio = torch.where(q > 0, log_p - log_q, -torch.inf)
    return WeightLaw(log_ratio, q / q.sum(-1, keepdim=True), latent.log_evidence, latent.probs)


def _expected_log_mean(log_v: Tensor, mass: Tensor, ks: Tensor) -> Tensor:
    """E log of the mean of K draws of v, for each K."""
    first = -_BELOW - float(ks.max().log())
    edges = torch.linspace(first, _FAR, 40, dtype=torch.float64)
    grid = refine(partial(_integrand, log_v, mass, ks), edges, tolerance=1e-9).grid
    near = grid.weights @ _integrand(log_v, mass, ks, grid.nodes)
    # Draws this much larger are out of the sum by now.
    tiny = log_v < 5.0 - _FAR
    return near + _far_integral(log_v[tiny], mass[tiny], ks)


def _far_integral(log_v: Tensor, mass: Tensor, ks: Tensor) -> Tensor:
    """The integral where s is beyond e^50: draws of next to no weight, that all K draws may be.

    There e^(-K s) is 0 and phi a staircase that goes on for as long as v is small, with a step, a few
    units of log s wide, at each atom.
    """
    if float(mass.sum() ** ks.min()) * float(_FAR - log_v.min() if len(log_v) else 0.0) < 1e-10:
        return torch.zeros_like(ks)
    if len(log_v) > _STEPS:
        order = log_v.argsort()
        group = (mass[order].cumsum(0) / mass.sum() * _STEPS).long().clamp_max(_STEPS - 1)
        total = torch.bincount(group, mass[order], _STEPS)
        log_v = torch.bincount(group, mass[order] * log_v[order], _STEPS)[total > 0] / total[total > 0]
        mass = total[total > 0]
    around = torch.tensor([-12.0, -5.0, -2.0, 0.0, 2.0, 4.0], dtype=torch.float64)
    edges = (around - log_v[:, None]).flatten()
    grid = Grid(torch.cat([torch.tensor([_FAR], dtype=torch.float64), edges[edges > _FAR]]).unique())
    # In logarithms, as s may overflow where v underflows.
    blocks = grid.nodes.split(max(1, BLOCK // len(log_v)))
    phi = torch.cat([(block[:, None] + log_v).exp_().neg_().exp_() @ mass for block in blocks])
    return -(grid.weights @ (phi[:, None] ** ks))


def _integrand(log_v: Tensor, mass: Tensor, ks: Tensor, log_s: Tensor) -> Tensor:
    """e^(-K s) - phi(s)^K at nodes log s ``(N,)`` for each K, shape ``(N, len(ks))``."""
    v, s = log_v.exp(), log_s.exp()[:, None]
    # Through phi - 1, which keeps its digits where s is small. A product costs far less than an exponential.
    less_one = [(-block * v).expm1_() @ mass for block in s.split(max(1, BLOCK // len(v)))]
    log_phi = torch.log1p(torch.cat(less_one).clamp(-1.0, 0.0))[:, None]
    return (-ks * s).exp() - (ks * log_phi).exp()
