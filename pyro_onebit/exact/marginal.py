"""One scalar latent on a grid: its densities, and how far apart two of them are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_onebit.data import ideal_threshold
from pyro_onebit.exact.densities import log_standard_normal
from pyro_onebit.quadrature import Grid


@dataclass(frozen=True)
class Marginal:
    """A latent's densities at the nodes of a grid that resolves them, for each codeword, in nats.

    Arguments:
        grid: The nodes, N of them.
        log_prior: log p(z), shape ``(N,)``.
        log_likelihood: log p(x|z), the other latents integrated out, shape ``(2, N)``.
        log_q: log q(z|x), shape ``(2, N)``.
        probs: The codewords' probabilities, shape ``(2,)``.
    """

    grid: Grid
    log_prior: Tensor
    log_likelihood: Tensor
    log_q: Tensor
    probs: Tensor

    @property
    def z(self) -> Tensor:
        """The nodes, ascending, shape ``(N,)``."""
        return self.grid.nodes

    @property
    def weights(self) -> Tensor:
        """The nodes' quadrature weights, shape ``(N,)``."""
        return self.grid.weights

    @cached_property
    def log_evidence(self) -> Tensor:
        """log p(x) of each codeword, shape ``(2,)``."""
        return torch.logsumexp(self.weights.log() + self.log_prior + self.log_likelihood, -1)

    @cached_property
    def log_posterior(self) -> Tensor:
        """log p(z|x), shape ``(2, N)``."""
        return self.log_prior + self.log_likelihood - self.log_evidence[:, None]

    @cached_property
    def log_aggregate(self) -> Tensor:
        """log q(z), the aggregate posterior, shape ``(N,)``."""
        return torch.logsumexp(self.probs.log()[:, None] + self.log_q, 0)

    def under(self, log_density: Tensor, f: Tensor) -> Tensor:
        """E[f(z)] under a density of each codeword: f of shape ``(N,)`` or ``(2, N)`` to ``(2,)``."""
        density = log_density.exp()
        # Where a density vanishes a log-ratio may be infinite; 0 times it is 0 here.
        return torch.where(density > 0, density * f, 0.0) @ self.weights

    def under_q(self, f: Tensor) -> Tensor:
        """E[f(z)] under q(z|x) of each codeword: f of shape ``(N,)`` or ``(2, N)`` to ``(2,)``."""
        return self.under(self.log_q, f)

    @cached_property
    def side(self) -> float:
        """1 if codeword 1 has the larger latent, by q's means, else -1."""
        mean = self.under_q(self.z)
        return 1.0 if mean[1] >= mean[0] else -1.0

    @cached_property
    def truncation(self) -> float:
        r"""Where an ideal standard normal latent is cut: :math:`\mp\Phi^{-1}(p)`, as q has the sides."""
        return self.side * ideal_threshold(float(self.probs[1])) + 0.0  # not -0

    @cached_property
    def log_truncated(self) -> Tensor:
        """N(0, 1) truncated to each codeword's side of `truncation`, normalised, shape ``(2, N)``."""
        above = self.side * (self.z - self.truncation) > 0
        inside = torch.stack([~above, above])
        return torch.where(inside, log_standard_normal(self.z) - self.probs.log()[:, None], -torch.inf)

    @cached_property
    def crossing(self) -> float | None:
        """Where the learned likelihoods of the two codewords are equal; None if nowhere.

        If in several places, where the prior is largest.
        """
        gap = self.log_likelihood[1] - self.log_likelihood[0]
        [at] = torch.nonzero(gap[:-1] * gap[1:] <= 0, as_tuple=True)
        if not len(at):
            return None
        i = int(at[self.log_prior[at].argmax()])
        share = float(gap[i] / (gap[i] - gap[i + 1])) if gap[i] != gap[i + 1] else 0.5
        return float(torch.lerp(self.z[i], self.z[i + 1], share))

    def wrong_side(self, log_density: Tensor) -> Tensor:
        """The mass that a density of each codeword has on the other one's side of `truncation`."""
        return self.under(log_density, torch.isinf(self.log_truncated).to(log_density.dtype))

    def distances(self, log_p: Tensor) -> dict[str, Tensor]:
        r"""How far q(z|x) is from another density p of each codeword, given at the nodes, ``(2, N)``.

        Returns:
            Each of shape ``(2,)``: ``kl_forward``, KL(q ‖ p), and ``kl_reverse``, KL(p ‖ q), in nats, infinite
            where the first has mass and the second none; ``wasserstein``, :math:`\int |F_q - F_p|\,dz`, in
            units of z; ``ks``, the largest :math:`|F_q - F_p|`.
        """
        gap = (self.grid.cumulative(self.log_q.exp()) - self.grid.cumulative(log_p.exp())).abs()
        return {
            "kl_forward": self.under_q(self.log_q - log_p),
            "kl_reverse": self.under(log_p, log_p - self.log_q),
            "wasserstein": gap @ self.weights,
            "ks": gap.amax(-1),
        }
