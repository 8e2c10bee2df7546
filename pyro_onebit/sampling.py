"""Draws of the latents, from q and from the exact posterior, and their importance weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.data import check_seed
from pyro_onebit.grids import BLOCK, log_likelihood, log_p_x
from pyro_onebit.latent import log_standard_normal
from pyro_onebit.truth import Truth

__all__ = ["Latents", "draw_posterior", "draw_q", "log_weight", "seeded"]

#: Latents by name, ``z1`` (and ``z2``), each of shape ``(draws, 2, 1)``: the second dimension is the codeword.
Latents = dict[str, Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws within come from a seed, and need no gradient; torch's generator is afterwards as it was.

    Raises:
        InputError: If the seed is out of range.
    """
    check_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


def draw_q(guide: Any, x: Tensor, count: int) -> Latents:
    """Draws of q(z|x) for each of the codewords x, ``(2, ndims)``; with torch's generator."""
    latents = {"z1": guide.q_z1(x).sample((count,))}
    if hasattr(guide, "q_z2"):
        latents["z2"] = guide.q_z2(latents["z1"]).sample()
    return latents


def log_weight(model: Any, guide: Any, x: Tensor, latents: Latents, likelihood: Tensor | None = None) -> Tensor:
    """log p(x, z) - log q(z|x), nats, shape ``(draws, 2)``; `likelihood`, if known, is `log_likelihood`."""
    z1 = latents["z1"]
    likelihood = log_likelihood(model, x, z1) if likelihood is None else likelihood
    log_ratio = likelihood - guide.q_z1(x).log_prob(z1)
    if "z2" not in latents:
        return log_ratio + log_standard_normal(z1).squeeze(-1)
    z2 = latents["z2"]
    log_prior = log_standard_normal(z2).squeeze(-1) + model.p_z1(z2).log_prob(z1)
    return log_ratio + log_prior - guide.q_z2(z1).log_prob(z2)


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
