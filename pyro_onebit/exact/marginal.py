"""One scalar latent on a grid: its densities, and how far apart two of them are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.quadrature import Grid
from pyro_onebit.system import Shown


@dataclass(frozen=True, repr=False)
class Marginal(Shown):
    """A latent's densities at the nodes of a grid that resolves them, for each codeword, in nats.

    Arguments:
        grid: The nodes, N of them.
        log_prior: log p(z), shape ``(N,)``.
        log_likelihood: log p(x|z), the other latents integrated out, shape ``(M, N)``.
        log_q: log q(z|x), shape ``(M, N)``.
        probs: The codewords' probabilities, shape ``(M,)``.
    """

    grid: Grid
    log_prior: Tensor
    log_likelihood: Tensor
    log_q: Tensor
    probs: Tensor

    def shown(self) -> dict[str, Any]:
        """Its size, and the evidence, nats per datum."""
        log_evidence = float(self.probs @ self.log_evidence)
        return {"codewords": len(self.probs), "nodes": len(self.z), "log_evidence": log_evidence}

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
        """log p(x) of each codeword, shape ``(M,)``."""
        return torch.logsumexp(self.weights.log() + self.log_prior + self.log_likelihood, -1)

    @cached_property
    def log_posterior(self) -> Tensor:
        """log p(z|x), shape ``(M, N)``."""
        return self.log_prior + self.log_likelihood - self.log_evidence[:, None]

    @cached_property
    def log_aggregate(self) -> Tensor:
        """log q(z), the aggregate posterior, shape ``(N,)``."""
        return torch.logsumexp(self.probs.log()[:, None] + self.log_q, 0)

    def shares(self, log_density: Tensor, f: Tensor) -> Tensor:
        """Each node's share, ``(M, N)``, of E[f(z)] under a density of each codeword: f ``(N,)`` or ``(M, N)``."""
        density = log_density.exp()
        # Where a density vanishes a log-ratio may be infinite; 0 times it is 0 here.
        return torch.where(density > 0, density * f, 0.0) * self.weights

    def under(self, log_density: Tensor, f: Tensor) -> Tensor:
        """E[f(z)] under a density of each codeword: f of shape ``(N,)`` or ``(M, N)`` to ``(M,)``."""
        return self.shares(log_density, f).sum(-1)

    def under_q(self, f: Tensor) -> Tensor:
        """E[f(z)] under q(z|x) of each codeword: f of shape ``(N,)`` or ``(M, N)`` to ``(M,)``."""
        return self.under(self.log_q, f)

    @cached_property
    def order(self) -> Tensor:
        """The codewords' numbers in the order of q's medians, shape ``(M,)``."""
        half = torch.full((len(self.probs), 1), 0.5, dtype=torch.float64)
        return self.grid.invert(self.grid.cumulative(self.log_q.exp()), half).squeeze(-1).argsort(stable=True)

    @cached_property
    def thresholds(self) -> Tensor:
        """Where an ideal model's latent is cut, ``(M - 1,)``: each codeword, in q's order, has its share of p(z)."""
        return self.grid.quantiles(self.log_prior.exp(), self.probs[self.order].cumsum(0)[:-1])

    @cached_property
    def _apart(self) -> Tensor:
        """How many intervals between `thresholds` a node lies above a codeword's own, ``(M, N)``."""
        return torch.searchsorted(self.thresholds, self.z) - self.order.argsort()[:, None]

    @cached_property
    def log_truncated(self) -> Tensor:
        """The prior truncated to each codeword's interval, normalised, shape ``(M, N)``: an ideal model's posterior."""
        return torch.where(self._apart == 0, self.log_prior - self.probs.log()[:, None], -torch.inf)

    @cached_property
    def crossing(self) -> float | None:
        """Where the learned likelihoods of two codewords are equal; None if nowhere, or if there are more codewords.

        If in several places, where the prior is largest.
        """
        if len(self.probs) != 2:
            return None
        gap = self.log_likelihood[1] - self.log_likelihood[0]
        [at] = torch.nonzero(gap[:-1] * gap[1:] <= 0, as_tuple=True)
        if not len(at):
            return None
        i = int(at[self.log_prior[at].argmax()])
        share = float(gap[i] / (gap[i] - gap[i + 1])) if gap[i] != gap[i + 1] else 0.5
        return float(torch.lerp(self.z[i], self.z[i + 1], share))

    def sides(self, log_density: Tensor) -> tuple[Tensor, Tensor]:
        """The masses that a density of each codeword has below and above its own interval, each of shape ``(M,)``."""
        below, above = (self.under(log_density, side.double()) for side in (self._apart < 0, self._apart > 0))
        return below, above

    def information(self, labels: Sequence[int] | Tensor, given: Sequence[int] | Tensor | None = None) -> float:
        r"""I(l(x); z) under q, nats, of a label of each codeword, one of its bits say; or :math:`I(l(x); z \mid g(x))`.

        Arguments:
            labels: A whole number for each codeword, ``(M,)``.
            given: The same of what is known beforehand; None: nothing.
        """
        known = torch.zeros(len(self.probs)) if given is None else torch.as_tensor(given)
        both = torch.stack([known, torch.as_tensor(labels).to(known)], 1)
        fine, coarse = (self._mixtures(groups) for groups in (both, known[:, None]))
        return float(self.probs @ self.under_q(fine - coarse))

    def _mixtures(self, groups: Tensor) -> Tensor:
        """log q(z | group) of each codeword's group, ``(M, N)``, groups being told apart by rows ``(M, k)``."""
        alike = (groups[:, None] == groups).all(-1)
        shares = torch.where(alike, self.probs, 0.0)
        shares = shares / shares.sum(-1, keepdim=True)
        return torch.stack([torch.logsumexp(own.log()[:, None] + self.log_q, 0) for own in shares])

    def wrong_side(self, log_density: Tensor) -> Tensor:
        """The mass that a density of each codeword has beyond its own interval between `thresholds`."""
        return self.under(log_density, (self._apart != 0).double())

    def distances(self, log_p: Tensor) -> dict[str, Tensor]:
        r"""How far q(z|x) is from another density p of each codeword, given at the nodes, ``(M, N)``.

        Returns:
            Each of shape ``(M,)``: ``kl_forward``, KL(q ‖ p), and ``kl_reverse``, KL(p ‖ q), in nats, infinite
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
