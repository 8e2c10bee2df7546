r"""The exact law of an importance weight, and what Monte Carlo bounds are expected to give.

For draws from q the weight is :math:`w = p(x, z) / q(z \mid x)`, and :math:`r = w / p(x)` has mean 1.
Everything that importance sampling does with K draws depends on the law of r alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyro_onebit.latent import Latent
from pyro_onebit.quadrature import refine

__all__ = ["WeightLaw", "law_of_one_latent"]

_BLOCK = 2**21
#: The integral over log s starts where K s is e^-45: both of its terms are then 1 to 1e-19.
_BELOW = 45.0


@dataclass(frozen=True)
class WeightLaw:
    """The law of r under q(z|x) and under p(z|x), as M atoms, for each codeword.

    Arguments:
        log_ratio: log r of each atom, shape ``(2, M)``.
        q: Its probability under q, shape ``(2, M)``.
        log_evidence: log p(x), nats, shape ``(2,)``.
        probs: The codewords' probabilities, shape ``(2,)``.
    """

    log_ratio: Tensor
    q: Tensor
    log_evidence: Tensor
    probs: Tensor

    @property
    def variance(self) -> Tensor:
        """Var(r) under q, shape ``(2,)``: in truth it is infinite if the tail index is 1/2 or more.

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
            Nats, shape ``(len(particles), 2)``.
        """
        ks = torch.tensor([float(k) for k in particles], dtype=torch.float64)
        # Of a single draw the logarithm's mean needs no integral, and at alpha 1 K does not matter.
        elbo = self.limit(1.0).expand(len(ks), 2)
        if alpha == 1.0 or not (ks > 1).any():
            return elbo
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
        r"""What the bound tends to as K grows: :math:`\ln p(x) - D_\alpha(q \,\|\, p)`, nats, shape ``(2,)``.

        At alpha 1, where K does not matter, the ELBO.
        """
        # An atom without mass may be infinitely far out.
        log_r = torch.where(self.q > 0, self.log_ratio, 0.0)
        if alpha == 1.0:
            return self.log_evidence + (self.q * log_r).sum(-1)
        moment = torch.logsumexp(self.q.log() + (1.0 - alpha) * log_r, -1)
        return self.log_evidence + moment / (1.0 - alpha)

    def quantiles(self, count: int) -> Tensor:
        """log r at the probabilities (i + 1/2) / count under q, ascending, shape ``(count, 2)``: an ideal sample."""
        levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        columns = []
        for log_r, q in zip(self.log_ratio, self.q, strict=True):
            order = log_r.argsort()
            cumulative = q[order].cumsum(0)
            columns.append(log_r[order][torch.searchsorted(cumulative, levels).clamp_max(len(order) - 1)])
        return torch.stack(columns, 1)


def law_of_one_latent(latent: Latent) -> WeightLaw:
    """The law of the weight of a model with a single latent: an atom a node."""
    q = latent.log_q.exp() * latent.weights
    log_ratio = torch.where(q > 0, latent.log_posterior - latent.log_q, -torch.inf)
    return WeightLaw(log_ratio, q / q.sum(-1, keepdim=True), latent.log_evidence, latent.probs)


def _expected_log_mean(log_v: Tensor, mass: Tensor, ks: Tensor) -> Tensor:
    """E log of the mean of K draws of v, for each K."""
    first = -_BELOW - float(ks.max().log())
    last = max(_BELOW, _BELOW - float(log_v.min()))
    # Where v is tiny with some probability, the integrand stays level over a very long way.
    far = torch.logspace(1.7, torch.log10(torch.tensor(last)).item(), 24, dtype=torch.float64)
    edges = torch.cat([torch.linspace(first, 49.0, 32, dtype=torch.float64), far[far > 50.0]])
    grid = refine(partial(_integrand, log_v, mass, ks), edges, tolerance=1e-9)
    return grid.weights @ _integrand(log_v, mass, ks, grid.nodes)


def _integrand(log_v: Tensor, mass: Tensor, ks: Tensor, log_s: Tensor) -> Tensor:
    """e^(-K s) - phi(s)^K at nodes log s ``(N,)`` for each K, shape ``(N, len(ks))``."""
    blocks = []
    for block in log_s.split(max(1, _BLOCK // len(log_v))):
        below_one = torch.expm1(-(block[:, None] + log_v).exp()) @ mass
        blocks.append(torch.log1p(below_one.clamp(-1.0, 0.0)))
    log_phi = torch.cat(blocks)[:, None]
    return (-ks * log_s.exp()[:, None]).exp() - (ks * log_phi).exp()
