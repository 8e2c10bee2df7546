"""What the exact figures ask of a model and a guide: log-densities and draws, in float64."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

#: Numbers in one temporary matrix: 2 million float64 are 16 MB, which a core's cache still helps.
BLOCK = 2**21


class ModelLike(Protocol):
    """What is judged as a model: a module with ``p_x(z1)`` and, with two layers, ``p_z1(z2)``.

    Each takes conditions ``(..., 1)`` to a distribution, of event shape ``(ndims,)`` and ``(1,)``.
    """

    def p_x(self, z1: Tensor, /) -> Any:
        """p(x|z1)."""


class GuideLike(Protocol):
    """What is judged as a guide: a module with ``q_z1(x)`` and, with two layers, ``q_z2(z1)``.

    They take rows x ``(..., ndims)`` and z1 ``(..., 1)`` to a distribution of event shape ``(1,)``. Its lowest possible
    loss is what its method ``optimum(data)`` says, if it has one.
    """

    def q_z1(self, x: Tensor, /) -> Any:
        """q(z1|x)."""


def float64_copy(module: Any) -> Any:
    """A copy of a module in float64.

    Raises:
        ArithmeticError: If a parameter is not finite.
    """
    if not all(torch.isfinite(p).all() for p in module.parameters()):
        raise ArithmeticError(f"a parameter of {type(module).__name__} is not finite")
    return copy.deepcopy(module).double().eval()


def log_p_x(model: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log p(x|z1) of each codeword at nodes ``(N,)``, shape ``(2, N)``."""
    blocks = []
    for block in z1.split(max(1, BLOCK // x.shape[-1])):
        p_x = model.p_x(block[:, None])
        blocks.append(torch.stack([p_x.log_prob(codeword) for codeword in x]))
    return torch.cat(blocks, -1)


def log_likelihood(model: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log p(x|z1), nats, summed over dimensions: z1 ``(draws, 2, 1)`` to ``(draws, 2)``."""
    # In blocks: all the logits at once would be gigabytes.
    blocks = z1.split(max(1, BLOCK // x.numel()))
    return torch.cat([model.p_x(block).log_prob(x) for block in blocks])


def log_q_z1(guide: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log q(z1|x) of each codeword at nodes ``(N,)``, shape ``(2, N)``."""
    log_q: Tensor = guide.q_z1(x).log_prob(z1[:, None, None])
    return log_q.T


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, 1), elementwise."""
    return torch.distributions.Normal(0.0, 1.0).log_prob(z)


def sample_sites(trace: Trace) -> list[tuple[str, Any]]:
    """The sites that have a density: plates announce themselves as sample sites too."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]


#: Latents by name, ``z1`` (and ``z2``), each of shape ``(draws, 2, 1)``: the second dimension is the codeword.
Latents = dict[str, Tensor]


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
