"""The reference models as Pyro's tutorials write a VAE: `pyro.module`, a plate, `SVI` and `Trace_ELBO`."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ExponentialLR
from torch import Tensor, nn
from torch.nn.functional import softplus

from peers import Chunks, Work
from peers.hand_torch import batch, dense_nets, in_chunks

# As in the tutorials: checks of the distributions' arguments are for writing a model, not for training it.
pyro.distributions.enable_validation(False)


class VAE(nn.Module):
    """x | z1 ~ Bernoulli, z1 ~ N(0, 1); with two layers z1 | z2 ~ Normal, z2 ~ N(0, 1)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.networks, self.work = dense_nets(work), work

    def normal(self, name: str, c: Tensor) -> dist.Distribution:
        """What a network says of a scalar latent, given c."""
        mean, raw = pyro.module(name, self.networks[name])(c).chunk(2, -1)
        return dist.Normal(mean, (softplus(raw) + self.work.min_variance).sqrt()).to_event(1)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        with pyro.plate("data", len(x)):
            latent = dist.Normal(x.new_zeros(len(x), 1), x.new_ones(len(x), 1)).to_event(1)
            if self.work.layers == 2:
                latent = self.normal("p_z1", pyro.sample("z2", latent))
            logits = pyro.module("p_x", self.networks["p_x"])(pyro.sample("z1", latent))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.normal("q_z1", x))
            if self.work.layers == 2:
                pyro.sample("z2", self.normal("q_z2", z1))


def train(work: Work) -> Chunks:
    """Train with `SVI`."""
    pyro.clear_param_store()  # of what this process has trained before
    pyro.set_rng_seed(work.seed)
    vae, x = VAE(work), batch(work)
    scheduler = ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": work.lr}, "gamma": work.decay})
    svi = SVI(vae.model, vae.guide, scheduler, loss=Trace_ELBO())

    def step() -> float:
        loss: float = svi.step(x)
        scheduler.step()
        return loss

    return in_chunks(work, vae.networks, step)
