"""The reference models as Pyro's tutorials write a VAE: `pyro.module`, a plate, `SVI` and `Trace_ELBO`."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ExponentialLR
from torch import Tensor, nn

from peers import Layers, OnChunk, Work

# As in the tutorials: checks of the distributions' arguments are for writing a model, not for training it.
pyro.distributions.enable_validation(False)


def hidden_layers(input_dim: int, width: int, count: int) -> nn.Sequential:
    sizes = [input_dim, *[width] * count]
    modules: list[nn.Module] = []
    for i in range(count):
        modules += [nn.Linear(sizes[i], sizes[i + 1]), nn.ELU()]
    return nn.Sequential(*modules)


class Encoder(nn.Module):
    """Mean and standard deviation of a scalar latent: q(z1|x), q(z2|z1) and p(z1|z2)."""

    def __init__(self, input_dim: int, width: int, work: Work) -> None:
        super().__init__()
        self.min_variance = work.min_variance
        self.hidden = hidden_layers(input_dim, width, work.hidden_layers)
        self.fc_loc = nn.Linear(width, 1)
        self.fc_variance = nn.Linear(width, 1)

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation given c."""
        hidden = self.hidden(c)
        variance = nn.functional.softplus(self.fc_variance(hidden)) + self.min_variance
        return self.fc_loc(hidden), variance.sqrt()


class Decoder(nn.Module):
    """Logits of p(x|z1)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.hidden = hidden_layers(1, work.width_x, work.hidden_layers)
        self.fc_logits = nn.Linear(work.width_x, work.ndims)

    def forward(self, z1: Tensor) -> Tensor:
        """Logits given z1."""
        logits: Tensor = self.fc_logits(self.hidden(z1))
        return logits


class OneLayerVAE(nn.Module):
    """z1 ~ N(0, 1), x | z1 ~ Bernoulli."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.q_z1 = Encoder(work.ndims, work.width_x, work)
        self.p_x = Decoder(work)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("p_x", self.p_x)
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(x.shape[0], 1), x.new_ones(x.shape[0], 1)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.p_x(z1)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("q_z1", self.q_z1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z1", dist.Normal(*self.q_z1(x)).to_event(1))


class TwoLayerVAE(OneLayerVAE):
    """z2 ~ N(0, 1), z1 | z2 ~ Normal, x | z1 ~ Bernoulli."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.q_z2 = Encoder(1, work.width_z, work)
        self.p_z1 = Encoder(1, work.width_z, work)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("p_z1", self.p_z1)
        pyro.module("p_x", self.p_x)
        with pyro.plate("data", x.shape[0]):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(x.shape[0], 1), x.new_ones(x.shape[0], 1)).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(*self.p_z1(z2)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.p_x(z1)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("q_z1", self.q_z1)
        pyro.module("q_z2", self.q_z2)
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", dist.Normal(*self.q_z1(x)).to_event(1))
            pyro.sample("z2", dist.Normal(*self.q_z2(z1)).to_event(1))


def train(work: Work, on_chunk: OnChunk) -> None:
    """Train with `SVI`; a snapshot is a copy of the VAE."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(work.seed)
        vae = OneLayerVAE(work) if work.layers == 1 else TwoLayerVAE(work)
        x = torch.cat([torch.zeros(work.rows // 2, work.ndims), torch.ones(work.rows - work.rows // 2, work.ndims)])
        scheduler = ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": work.lr}, "gamma": work.decay},
        )
        svi = SVI(vae.model, vae.guide, scheduler, loss=Trace_ELBO())
        for _ in range(work.chunks):
            total = 0.0
            for _ in range(work.steps // work.chunks):
                total += svi.step(x)
                scheduler.step()
            on_chunk(copy.deepcopy(vae), total / (work.steps // work.chunks) / work.rows)


def layers(snapshot: OneLayerVAE) -> Layers:
    """The two heads of an encoder, stacked, are its last layer."""

    def linear(modules: nn.Module) -> list[tuple[Tensor, Tensor]]:
        return [(m.weight.detach(), m.bias.detach()) for m in modules.modules() if isinstance(m, nn.Linear)]

    result: Layers = {}
    for name, network in snapshot.named_children():
        result[name] = linear(network)
        if isinstance(network, Encoder):
            *hidden, (weight, bias), (weight_variance, bias_variance) = result[name]
            result[name] = [*hidden, (torch.cat([weight, weight_variance]), torch.cat([bias, bias_variance]))]
    return result
