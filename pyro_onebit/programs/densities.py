"""What is judged, and what is known of it on a mesh: the log-density of every site."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from pyro_onebit.quadrature import log_product


class DataLike(Protocol):
    """What is judged as data: M codewords, and how often each occurs."""

    @property
    def codewords(self) -> Tensor:
        """Distinct rows, shape ``(M, ndims)``."""

    @property
    def probs(self) -> Tensor:
        """Their probabilities, shape ``(M,)``."""


@dataclass(frozen=True)
class Densities:
    """Log-densities of all sites, nats, each of a shape that broadcasts to one that ends in M.

    Arguments:
        q: Of each latent, by the guide.
        p: Of each latent, by the model.
        likelihood: log p(x|z), of all that the model observes.
    """

    q: dict[str, Tensor]
    p: dict[str, Tensor]
    likelihood: Tensor

    @cached_property
    def log_q(self) -> Tensor:
        """log q(z|x)."""
        return log_product(self.q)

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z)."""
        return log_product(self.p)

    @cached_property
    def log_joint(self) -> Tensor:
        """log p(x, z)."""
        return log_product({**self.p, "x": self.likelihood})

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z|x)."""
        return self.log_joint - self.log_q
