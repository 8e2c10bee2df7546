"""Training written by hand in torch, without Pyro: the reference recipe, and the package's own default step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, elu, linear, softplus

from peers import Layers, OnChunk, Work

if TYPE_CHECKING:
    from pyro_onebit.config import Recipe
    from pyro_onebit.data import OneBitData

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


def log_standard_normal(z: Tensor) -> Tensor:
    return -0.5 * z * z - HALF_LOG_2PI


def log_normal(z: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    return log_standard_normal((z - mean) / sd) - sd.log()


def draw(mean: Tensor, sd: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A value and its log-density, whose quadratic form is the noise's own."""
    return mean + sd * noise, log_standard_normal(noise) - sd.log()


def train(work: Work, on_chunk: OnChunk) -> None:
    """The reference recipe with a fused Adam; a snapshot is each network's parameters, copied."""
    torch.manual_seed(work.seed)
    networks = nn.ModuleDict(
        {
            name: dense_net([inputs, *[width] * work.hidden_layers, outputs])
            for name, (inputs, width, outputs) in work.networks.items()
        }
    )
    x = torch.cat([torch.zeros(work.rows // 2, work.ndims), torch.ones(work.rows - work.rows // 2, work.ndims)])
    optimizer = torch.optim.Adam(networks.parameters(), lr=work.lr, fused=True)
    steps = work.steps // work.chunks
    for _ in range(work.chunks):
        total = 0.0
        for _ in range(steps):
            optimizer.zero_grad()
            loss = reference_loss(networks, x, work.min_variance)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= work.decay
            total += loss.item()
        snapshot = {name: [p.detach().clone() for p in net.parameters()] for name, net in networks.items()}
        on_chunk(snapshot, total / steps / work.rows)


def dense_net(sizes: list[int]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), nn.ELU()]
    return nn.Sequential(*modules[:-1])


def reference_loss(networks: nn.ModuleDict, x: Tensor, min_variance: float) -> Tensor:
    """One draw's estimate of -ELBO, summed over the rows."""

    def gaussian(name: str, c: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = networks[name](c).unbind(-1)
        return mean[:, None], (softplus(raw) + min_variance).sqrt()[:, None]

    mean, sd = gaussian("q_z1", x)
    z1, log_ratio = draw(mean, sd, torch.randn_like(mean))
    if "q_z2" in networks:
        mean, sd = gaussian("q_z2", z1)
        z2, log_q_z2 = draw(mean, sd, torch.randn_like(mean))
        log_ratio = log_ratio + log_q_z2 - log_standard_normal(z2) - log_normal(z1, *gaussian("p_z1", z2))
    else:
        log_ratio = log_ratio - log_standard_normal(z1)
    return binary_cross_entropy_with_logits(networks["p_x"](z1), x, reduction="sum") + log_ratio.sum()


def layers(snapshot: dict[str, list[Tensor]]) -> Layers:
    """The parameters of a `Sequential` are weight and bias of each linear layer in turn."""
    return {name: list(zip(tensors[::2], tensors[1::2], strict=True)) for name, tensors in snapshot.items()}


def default_step(model: nn.Module, guide: nn.Module, data: OneBitData, recipe: Recipe) -> Callable[[], float]:
    """A step of the package's default recipe on the package's parameters, with nothing of Pyro in it.

    The same networks on the same particles and the same optimisers: the ratio of the two times is
    what the package costs. The noise is drawn in the package's order, so that equal seeds give equal
    losses; the benchmark checks that the first ones are.

    Arguments:
        model: The package's model, for its parameters and where they start.
        guide: The package's guide, likewise.
        data: The codewords.
        recipe: The preset's; it must train on a lattice.

    Returns:
        Makes a step and returns its loss, in nats per datum.

    Raises:
        ValueError: If `recipe` has no lattice, or an objective that is not written here.
    """
    if recipe.particles is None or recipe.objective not in ("elbo", "stl"):
        raise ValueError(f"this step is the lattice's, for the objectives elbo and stl; the recipe is {recipe}")
    # Here, because the reference recipe does without the package.
    from pyro_onebit.optimizers import make_optimizers

    two_layers = hasattr(guide, "q_z2")
    q_z1, p_x = guide.q_z1, model.p_x
    x = data.codewords
    probs = data.probs
    x_seen = x / q_z1.divisor
    start_z1 = torch.lerp(q_z1.low, q_z1.high, x.mean(-1, keepdim=True))
    slope, centre = float(p_x.slope), float(p_x.centre)
    seen = recipe.seen(x.shape[-1])
    sticking = recipe.objective == "stl"

    def noise(spread: Tensor) -> Tensor:
        uniform = ((spread + torch.rand(2)) % 1.0).clamp(1e-6, 1.0 - 1e-6)
        normal: Tensor = torch.special.ndtri(uniform)
        return normal

    down = _conditional(model.p_z1) if two_layers else None
    up = _conditional(guide.q_z2) if two_layers else None
    up_fixed = _conditional(guide.q_z2, detached=True) if two_layers else None
    encode = _conditional(q_z1)

    def terms(particles: int) -> tuple[Tensor, Tensor, Tensor]:
        """The particles' weights, their z1, and log q - log p of their latents."""
        lattice = torch.arange(particles)[:, None]
        eps1 = recipe.noise_width * noise(lattice / particles)
        weight = torch.exp(-0.5 * eps1 * eps1 * (1.0 - recipe.noise_width**-2))
        weight = probs * weight / weight.sum(0)
        mean, sd = encode(x_seen)
        mean = start_z1 + mean
        z1, log_ratio = draw(mean, sd, eps1[..., None])
        if sticking:
            log_ratio = log_normal(z1, mean.detach(), sd.detach())
        if up is None or down is None or up_fixed is None:
            log_ratio = log_ratio - log_standard_normal(z1)
        else:
            mean, sd = up(z1)
            z2, log_q_z2 = draw(mean, sd, noise(lattice * GOLDEN)[..., None])
            if sticking:
                # z1 still moves the density of z2; the parameters do not.
                log_q_z2 = log_normal(z2, *up_fixed(z1))
            log_ratio = log_ratio + log_q_z2 - log_standard_normal(z2) - log_normal(z1, *down(z2))
        return weight, z1, log_ratio[..., 0]

    def loss() -> Tensor:
        weight, z1, log_ratio = terms(seen)
        logits = _forward(_weights(p_x), z1) + slope * (z1 - centre)
        recon = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        value = (weight * (recon + log_ratio)).sum()
        if rest := recipe.particles - seen:
            share = seen / recipe.particles
            weight_rest, _, log_ratio_rest = terms(rest)
            kl = (weight * log_ratio).sum()
            value = value + (1.0 - share) * ((weight_rest * log_ratio_rest).sum() - kl)
        return value

    parameters = [*model.parameters(), *guide.parameters()]
    optimizers = make_optimizers(parameters, recipe)
    decay = (recipe.lr_final / recipe.lr) ** (1.0 / recipe.steps)

    def step() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= decay
        return value.item()

    return step


def _conditional(network: Any, *, detached: bool = False) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Mean and standard deviation of one of the package's Gaussians, from its parameters as they are now."""
    # Here, because the reference recipe does without the package.
    from pyro_onebit.networks import MIN_VARIANCE

    bias = float(network.variance_bias)

    def head(c: Tensor) -> tuple[Tensor, Tensor]:
        weights = _weights(network)
        if detached:
            weights = [(weight.detach(), offset.detach()) for weight, offset in weights]
        mean, raw = _forward(weights, c).split(1, -1)
        return mean, softplus(raw + bias) + MIN_VARIANCE

    def plain(c: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = head(c)
        return mean, variance.sqrt()

    if not hasattr(network, "delta"):
        return plain
    delta, gain, threshold = float(network.delta), float(network.gain), float(network.threshold)

    def stretched_up(z1: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = head(z1)
        alpha = gain * z1 + mean
        return threshold + delta * torch.sinh(alpha), delta * torch.cosh(alpha) * spread

    def stretched_down(z2: Tensor) -> tuple[Tensor, Tensor]:
        a = 0.5 * torch.asinh((z2 - threshold) / delta)
        mean, variance = head(a)
        return 0.5 * gain * a + mean, variance.sqrt()

    return stretched_down if network.down else stretched_up


def _weights(network: Any) -> list[tuple[Tensor, Tensor]]:
    return [(layer.weight, layer.bias) for layer in network.net.layers]


def _forward(weights: list[tuple[Tensor, Tensor]], c: Tensor) -> Tensor:
    *hidden, last = weights
    for weight, bias in hidden:
        c = elu(linear(c, weight, bias))
    return linear(c, *last)
