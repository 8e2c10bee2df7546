"""Training written by hand in torch, without Pyro: the reference recipe, and the package's own default step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from peers import CHUNKS, Chunks, Work

if TYPE_CHECKING:
    from pyro_onebit import Guide, Model, OneBitData, Recipe


def draw(mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """A value and its log-density, but for the constant: there are as many densities in q as in p."""
    noise = torch.randn_like(mean)
    return mean + sd * noise, -0.5 * noise.square() - sd.log()


def train(work: Work) -> Chunks:
    """The reference recipe with a fused Adam."""
    torch.manual_seed(work.seed)
    networks, x = dense_nets(work), batch(work)
    optimizer = torch.optim.Adam(networks.parameters(), lr=work.lr, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = reference_loss(networks, x, work.min_variance)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= work.decay
        return loss.item()

    return in_chunks(work, networks, step)


def dense_nets(work: Work) -> nn.ModuleDict:
    nets = nn.ModuleDict()
    for name, sizes in work.sizes.items():
        layers = [(nn.Linear(*pair), nn.ELU()) for pair in itertools.pairwise(sizes)]
        nets[name] = nn.Sequential(*itertools.chain(*layers))[:-1]
    return nets


def batch(work: Work) -> Tensor:
    half = work.rows // 2
    return torch.cat([torch.zeros(half, work.ndims), torch.ones(work.rows - half, work.ndims)])


def in_chunks(work: Work, networks: nn.ModuleDict, step: Callable[[], float]) -> Chunks:
    """Train with `step`, which returns the loss summed over rows."""
    steps = work.steps // CHUNKS
    for _ in range(CHUNKS):
        loss = sum(step() for _ in range(steps)) / steps / work.rows
        yield {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}, loss


def reference_loss(networks: nn.ModuleDict, x: Tensor, min_variance: float) -> Tensor:
    """One draw's estimate of -ELBO, summed over the rows."""

    def gaussian(name: str, c: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = networks[name](c).chunk(2, -1)
        return mean, (softplus(raw) + min_variance).sqrt()

    z1, kl = draw(*gaussian("q_z1", x))
    if "q_z2" in networks:
        z2, log_q_z2 = draw(*gaussian("q_z2", z1))
        mean, sd = gaussian("p_z1", z2)
        kl = kl + log_q_z2 + 0.5 * z2.square() + 0.5 * ((z1 - mean) / sd).square() + sd.log()
    else:
        kl = kl + 0.5 * z1.square()
    return binary_cross_entropy_with_logits(networks["p_x"](z1), x, reduction="sum") + kl.sum()


def default_step(model: Model, guide: Guide, data: OneBitData, recipe: Recipe) -> Callable[[], float]:
    """What makes a step of the package's default recipe in plain torch and returns its loss, in nats per datum.

    It has the package's networks, particles and optimisers, but no Pyro model and no recorded graph: the ratio of the
    two times says what the package's way to run a step costs or saves. The noise is drawn in the package's order, so
    that equal seeds give equal losses; the benchmark checks that the first ones are.
    """
    # Here, because the reference recipe does without the package.
    from pyro_onebit.distributions import sample_from_noise, standard_normal
    from pyro_onebit.nn import frozen
    from pyro_onebit.training import OneOptimizer, lattice_noise, lattice_points, lattice_weights

    x, particles, two_layers = data.codewords, recipe.particles or 0, guide.layers == 2
    seen, prior = recipe.seen(x.shape[-1]), standard_normal(x)
    held = partial(frozen, guide) if recipe.objective == "stl" else nullcontext
    points = {count: [lattice_points(count, i) for i in range(2)] for count in (seen, particles - seen)}
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = OneOptimizer(parameters, recipe)

    def terms(count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The particles' weights, their z1, and the mean of log q - log p of their latents."""
        noise = recipe.noise_width * lattice_noise(points[count][0], 2)
        z1 = sample_from_noise(guide.q_z1(x), noise[..., None])
        if two_layers:
            z2 = sample_from_noise(guide.q_z2(z1), lattice_noise(points[count][1], 2)[..., None])
        # z1 still moves the density of z2; if the landing is stuck, the guide's parameters do not.
        with held():
            log_q = guide.q_z1(x).log_prob(z1) + (guide.q_z2(z1).log_prob(z2) if two_layers else 0.0)
        log_p = prior.log_prob(z2) + model.p_z1(z2).log_prob(z1) if two_layers else prior.log_prob(z1)
        weight = lattice_weights(noise, recipe.noise_width)
        weight = data.probs * weight / weight.sum(0)
        return weight, z1, (weight * (log_q - log_p)).sum()

    def step() -> float:
        weight, z1, kl = terms(seen)
        if seen < particles:
            kl = torch.lerp(terms(particles - seen)[-1], kl, seen / particles)
        loss = kl - (weight * model.p_x(z1).log_prob(x)).sum()
        for parameter in parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        optimizer(parameters)
        return loss.item()

    return step
