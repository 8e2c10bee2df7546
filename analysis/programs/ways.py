"""Other ways to write a program of one latent: what is true of it is what was true before."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from programs.building import Case, Encoder, OneLatent, Program, bernoulli, one, plate, side_of
from programs.families import CLOSE, STANDARD, gaussian, student
from programs.refusals import with_parameter
from pyro_onebit import OneBitData


class PyroGuide(PyroModule):
    """A Gaussian whose place and width are Pyro parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = PyroParam(torch.tensor(0.75))
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        """Run it on rows x."""
        side = side_of(x)
        with plate(x):
            pyro.sample("z1", dist.Normal(self.slope * side, self.scale * torch.ones_like(side)).to_event(1))


def plain_model(x: Tensor) -> None:
    """A function; its slope is in Pyro's store."""
    slope = pyro.param("slope", torch.tensor(5.0))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", STANDARD.torch(torch.zeros_like(x[:, :1])).to_event(1))
        pyro.sample("x", bernoulli(lambda z, m: slope * z, z1, x), obs=x)


def plain_guide(x: Tensor) -> None:
    """A function; its numbers are in Pyro's store."""
    place = pyro.param("place", lambda: torch.tensor(1.0))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(place * side_of(x), scale).to_event(1))


def trained_guide() -> Any:
    """The plain one after a training, here by hand, that left other numbers in the store."""
    plain_guide(torch.zeros(2, 3))
    pyro.get_param_store()["place"] = torch.tensor(0.75)
    return plain_guide


def automatic() -> Any:
    """Pyro's own mean field."""
    guide = AutoNormal(OneLatent(), init_scale=0.5)
    guide(OneBitData(3, 0.2).codewords)
    guide.locs.z1 = PyroParam(torch.tensor([[-1.0], [1.0]]))
    return guide


def concatenating(x: Tensor) -> None:
    """A model that only takes as many z as x has rows, in two dimensions."""
    with plate(x):
        z1 = pyro.sample("z1", STANDARD.torch(torch.zeros_like(x[:, :1])).to_event(1))
        logits = torch.cat([z1] * x.shape[1], dim=1) @ (5.0 * torch.eye(x.shape[1], dtype=x.dtype))
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def telling(x: Tensor) -> None:
    """A model that also says what its decoder made of z."""
    with plate(x):
        z1 = pyro.sample("z1", STANDARD.torch(torch.zeros_like(x[..., :1])).to_event(1))
        logits = pyro.deterministic("logits", 5.0 * z1, event_dim=1)
        pyro.sample("x", dist.Bernoulli(logits=logits.expand(*z1.shape[:-1], x.shape[-1])).to_event(1), obs=x)


def dimension_plate(x: Tensor) -> None:
    """A model with a plate for x's dimensions too."""
    with pyro.plate("data", x.shape[-2], dim=-2):
        z1 = pyro.sample("z1", STANDARD.torch(torch.zeros_like(x[..., :1])))
        with pyro.plate("dimensions", x.shape[-1], dim=-1):
            pyro.sample("x", dist.Bernoulli(logits=5.0 * z1), obs=x)


def dimension_guide(x: Tensor) -> None:
    """The guide that goes with it."""
    with pyro.plate("data", x.shape[-2], dim=-2):
        pyro.sample("z1", CLOSE.torch(side_of(x)))


def linear_guide() -> Any:
    """A guide that is an ordinary network."""
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5] * 4, [0.0] * 4]))
        net.bias.copy_(torch.tensor([-1.0, 0.5]))

    def run(self: Any, x: Tensor) -> None:
        loc, scale = self.net(x).split(1, -1)
        with plate(x):
            pyro.sample("z1", dist.Normal(loc, scale).to_event(1))

    return Program(run, net=net)


def single_guide(x: Tensor) -> None:
    """A guide that computes in single precision, whatever it is given."""
    side = side_of(x).float()
    with plate(x):
        pyro.sample("z1", CLOSE.torch(side).to_event(1))


def wide_program() -> Any:
    """A guide that draws from a wider law than the ``q_z1`` that it shows."""
    guide: Any = Encoder(gaussian(0.7).torch)
    guide.q_z1 = lambda x: gaussian(0.2).torch(side_of(x)).to_event(1)
    return guide


def ways() -> list[Case]:
    less = gaussian(0.5, 0.75)
    return [
        one("events of shape ()", CLOSE, scalar=True),
        one("a site named theta", CLOSE, site="theta"),
        one("a site named theta of shape ()", student(5.0), site="theta", scalar=True),
        one("an observed site named y", CLOSE, observed="y"),
        one("plain functions with pyro.param", CLOSE, model=lambda: plain_model, guide=lambda: plain_guide),
        one("plain functions, trained", less, model=lambda: plain_model, guide=trained_guide),
        one("a PyroModule", less, guide=PyroGuide),
        one("an nn.Linear", CLOSE, guide=linear_guide, data=(4, 0.2)),
        one("AutoNormal", CLOSE, guide=automatic),
        one("a model that concatenates rows", CLOSE, model=lambda: concatenating),
        one("a model with a deterministic site", CLOSE, model=lambda: telling),
        one("a plate for the dimensions", CLOSE, model=lambda: dimension_plate, guide=lambda: dimension_guide),
        one("a guide in single precision", CLOSE, guide=lambda: single_guide, tolerance=1e-5),
        one("a q_z1 that is not what the program draws", gaussian(0.7), data=(5, 0.5), guide=wide_program),
        one(
            "a mean of 1e30",
            gaussian(1.0, 1e30),
            decoder=lambda z, m: 0.0 * z,
            guide=lambda: with_parameter(1e30, "mean"),
        ),
    ]
