"""Programs that no figure is right for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal
from scipy import stats
from torch import Tensor, nn

from programs.building import (
    Case,
    Encoder,
    OneLatent,
    Program,
    TwoEncoder,
    TwoLatents,
    affine,
    around_mean,
    bernoulli,
    plate,
    refuse,
    side_of,
)
from programs.families import CLOSE, STANDARD, Family, family, steep


class Larger(dist.Normal):
    """A density that is too large."""

    factor = math.e

    def log_prob(self, value: Tensor) -> Tensor:
        """What is said to be one."""
        return super().log_prob(value) + math.log(self.factor)


class SlightlyLarger(Larger):
    """By a thousandth."""

    factor = 1.001


class Elsewhere(dist.Normal):
    """Draws that are not of its density."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """To the right of where they should be."""
        return super().rsample(sample_shape) + 0.3

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The same."""
        return self.rsample(sample_shape).detach()


def too_large(kind: type[Larger], slope: float = 1.0) -> Family:
    return family(kind, stats.norm(), 0.5 if slope else 1.0, slope)


def drawing(*draws: tuple[str, Callable[[Tensor], Any]], observe: bool = False, within: Any = plate) -> Any:
    """A program that draws each of named sites from a function of side, and observes x if it is a model."""

    def run(x: Tensor) -> None:
        with within(x):
            for name, make in draws:
                z = pyro.sample(name, make(side_of(x)))
            if observe:
                pyro.sample("x", bernoulli(steep, z[..., :1], x), obs=x)

    return run


def outside(x: Tensor, observe: bool) -> None:
    loc = side_of(x) * (not observe)
    z1 = pyro.sample("z1", dist.Normal(loc, torch.ones_like(loc)).to_event(2))
    if observe:
        with plate(x):
            pyro.sample("x", bernoulli(steep, z1, x), obs=x)


def thrice(x: Tensor, observe: bool) -> None:
    loc = side_of(x)[..., 0] * (not observe)
    with pyro.plate("copies", 3, dim=-2), plate(x):
        z1 = pyro.sample("z1", dist.Normal(loc, torch.ones_like(loc)))
    if observe:
        with plate(x):
            pyro.sample("x", bernoulli(steep, z1.mean(-2)[..., None], x), obs=x)


def one_for_all(x: Tensor, observe: bool) -> None:
    z1 = pyro.sample("z1", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
    if observe:
        with plate(x):
            pyro.sample("x", bernoulli(steep, z1.expand(*z1.shape[:-1], len(x), 1), x), obs=x)


def subsampled(x: Tensor, observe: bool) -> None:
    loc = side_of(x) * (not observe)
    with pyro.plate("data", 1000, subsample_size=len(x)):
        z1 = pyro.sample("z1", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
        if observe:
            pyro.sample("x", bernoulli(steep, z1, x), obs=x)


def penalised(x: Tensor) -> None:
    with plate(x):
        z1 = pyro.sample("z1", STANDARD.torch(torch.zeros_like(x[..., :1])).to_event(1))
        pyro.factor("penalty", -(z1[..., 0] ** 2))
        pyro.sample("x", bernoulli(steep, z1, x), obs=x)


def masked(x: Tensor) -> None:
    with plate(x), poutine.mask(mask=x[..., 0] > 0.5):
        pyro.sample("z1", CLOSE.torch(side_of(x)).to_event(1))


def with_parameter(value: float, of: str) -> Any:
    """A guide that has a parameter that a training brought to a value."""

    def run(self: Any, x: Tensor) -> None:
        side = side_of(x)
        loc = self.value * side if of == "mean" else side
        scale = (self.value if of == "log scale" else torch.zeros_like(self.value)).exp() * torch.ones_like(side)
        with plate(x):
            pyro.sample("z1", dist.Normal(loc, scale, validate_args=False).to_event(1))

    return Program(run, value=nn.Parameter(torch.tensor(value)))


def both(program: Callable[[Tensor, bool], None]) -> dict[str, Any]:
    """The model and the guide that one function of (x, whether it observes) makes."""
    return {"model": lambda x: program(x, True), "guide": lambda x: program(x, False)}


def refusals() -> list[Case]:
    def scalar(side: Tensor) -> Any:
        return dist.Normal(side, 1.0).to_event(1)

    def coin(side: Tensor) -> Any:
        return dist.Bernoulli(0.5 * torch.ones_like(side)).to_event(1)

    def pair(side: Tensor) -> Any:
        return dist.Normal(side.expand(*side.shape[:-1], 2), 1.0).to_event(1)

    def half_lost(side: Tensor) -> Any:
        return dist.Normal(torch.where(side > 0, math.nan, side), 0.5, validate_args=False)

    three = [(name, scalar) for name in ("z3", "z2", "z1")]
    model = OneLatent()

    following = affine(0.625, 0.0, around_mean(0.75))
    growing = affine(0.625, 0.0, too_large(Larger).torch)
    noisy = Encoder(lambda side: dist.Normal(side + torch.randn_like(side), 0.5))
    return [
        refuse("a q that is e times too large", "q is no density", guide=Encoder(too_large(Larger).torch)),
        refuse("a q that is 0.1% too large", "q is no density", guide=Encoder(too_large(SlightlyLarger).torch)),
        refuse("a prior that is e times too large", "p is no density", OneLatent(too_large(Larger, 0.0))),
        refuse(
            "draws 0.3 beside their density",
            "q is not what is drawn",
            guide=Encoder(family(Elsewhere, stats.norm()).torch),
        ),
        refuse(
            "a conditional prior e times too large",
            "p(z1|z2) is no density",
            TwoLatents(law=Larger),
            TwoEncoder(CLOSE.torch, following),
        ),
        refuse(
            "a conditional q e times too large",
            "q(z2|z1) is no density",
            TwoLatents(),
            TwoEncoder(CLOSE.torch, growing),
        ),
        refuse("a NaN for a mean", "nothing is known", guide=with_parameter(math.nan, "mean")),
        refuse("a scale of exp(1e30)", "no number for it", guide=with_parameter(1e30, "log scale")),
        refuse("NaN for codeword 1 only", "nothing is known", guide=Encoder(half_lost)),
        refuse("a point", "no density", guide=Encoder(dist.Delta)),
        refuse("a discrete latent", "not continuous", drawing(("z1", coin), observe=True), drawing(("z1", coin))),
        refuse("a latent of two numbers", "not scalar", drawing(("z1", pair), observe=True), drawing(("z1", pair))),
        refuse("three latents", "two at most", drawing(*three, observe=True), drawing(*three)),
        refuse("no latent", "nothing to judge", drawing(observe=False), drawing()),
        refuse("a site outside the plate", "one joint site for all rows", **both(outside)),
        refuse("a latent for all rows together", "not one per row", **both(one_for_all)),
        refuse("three copies of the latent in a plate", "not one per row", **both(thrice)),
        refuse("a plate that subsamples", "densities are scaled", **both(subsampled)),
        refuse("a guide that draws another latent", "not the model's", model, Encoder(CLOSE.torch, "z2")),
        refuse("a guide that draws one of two latents", "one is missing", TwoLatents(), Encoder(CLOSE.torch)),
        refuse("a guide that draws one more", "the model has none", model, drawing(("z1", scalar), ("z2", scalar))),
        refuse("a model that observes nothing", "no x", drawing(("z1", scalar))),
        refuse("a scaled guide", "what is trained is no ELBO", guide=poutine.scale(Encoder(CLOSE.torch), 0.5)),
        refuse("a scaled model", "what is trained is no ELBO", poutine.scale(OneLatent(), 0.5)),
        refuse("a masked guide", "what is trained is no ELBO", guide=masked),
        refuse("a model with a factor", "p is no density", penalised),
        refuse("a guide with noise of its own", "its density is not known", guide=noisy),
        refuse(
            "a guide that mixes its rows",
            "no q(z|x) of one x",
            guide=Encoder(lambda side: dist.Normal(side - side.mean(0), 0.5)),
        ),
        refuse("AutoDelta", "no density", model, AutoDelta(model)),
        refuse("AutoIAFNormal", "one joint latent for all rows", model, AutoIAFNormal(model)),
        refuse("a guide that raises", "it fails", guide=lambda x: 1 / 0),
    ]
