"""How a case is made: programs from functions, and the case that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from programs.answers import Linear, LogLikelihood, one_latent, two_linear
from programs.families import CLOSE, STANDARD, Decoder, Family, log_likelihood, steep
from pyro_onebit import OneBitData

Programs = tuple[Any, Any, OneBitData]


@dataclass(frozen=True)
class Case:
    """A model and a guide, and what is true of them.

    Arguments:
        name: What it is.
        make: The model, the guide and the data, new ones.
        right: The figures by name; None: it is to be refused.
        how: Where the right answer comes from, or why it is to be refused.
        tolerance: How far from it is right, absolutely and as a share.
    """

    name: str
    make: Callable[[], Programs]
    right: Callable[[], dict[str, float]] | None
    how: str
    tolerance: float = 1e-6


def side_of(x: Tensor) -> Tensor:
    """-1 or 1, of each row, ``(rows, 1)``."""
    return 2.0 * x.mean(-1, keepdim=True) - 1.0


def bernoulli(decoder: Decoder, z: Tensor, x: Tensor) -> Any:
    """p(x|z) for z ``(..., 1)``."""
    return dist.Bernoulli(logits=decoder(z, torch).expand(*z.shape[:-1], x.shape[-1])).to_event(1)


def gaussian_dimensions(decoder: Decoder, z: Tensor, x: Tensor) -> Any:
    """Each dimension of x normal around the decoder's value, with variance 1."""
    return dist.Normal(decoder(z, torch).expand(*z.shape[:-1], x.shape[-1]), 1.0).to_event(1)


class Program(nn.Module):
    """A program that is a function of itself and x, with what is to be its submodules or parameters."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        return self.function(self, x)


def plate(x: Tensor) -> Any:
    return pyro.plate("data", x.shape[-2], dim=-1)


class OneLatent(nn.Module):
    """One latent z from a prior, and x given z; z has event shape ``(1,)`` or, if `scalar`, ``()``."""

    def __init__(
        self,
        prior: Family = STANDARD,
        decoder: Decoder = steep,
        site: str = "z1",
        scalar: bool = False,
        observe: Callable[[Decoder, Tensor, Tensor], Any] = bernoulli,
        observed: str = "x",
    ) -> None:
        super().__init__()
        self.prior, self.decoder, self.site, self.scalar = prior, decoder, site, scalar
        self.observe, self.observed = observe, observed

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        like = torch.zeros_like(x[..., :1])
        with plate(x):
            if self.scalar:
                z = pyro.sample(self.site, self.prior.torch(like[..., 0]))[..., None]
            else:
                z = pyro.sample(self.site, self.prior.torch(like).to_event(1))
            return pyro.sample(self.observed, self.observe(self.decoder, z, x), obs=x)


class Encoder(nn.Module):
    """q(z|x), as `OneLatent` draws z."""

    def __init__(self, make: Callable[[Tensor], Any], site: str = "z1", scalar: bool = False) -> None:
        super().__init__()
        self.make, self.site, self.scalar = make, site, scalar

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        side = side_of(x)
        with plate(x):
            return pyro.sample(self.site, self.make(side[..., 0]) if self.scalar else self.make(side).to_event(1))


#: Mean and sd of z1 given z2, in torch or numpy.
Conditional = Callable[[Any, Any], tuple[Any, Any]]


def tilted(z2: Any, m: Any) -> tuple[Any, Any]:
    return 0.75 * z2 + 0.125, 0.5 * m.ones_like(z2)


class TwoLatents(nn.Module):
    """z2 from a prior, a Gaussian z1 given z2, and x given ``mix[0] * z1 + mix[1] * z2``."""

    def __init__(
        self,
        p_z1: Conditional = tilted,
        sites: Sequence[str] = ("z1", "z2"),
        prior: Family = STANDARD,
        mix: tuple[float, float] = (1.0, 0.0),
        law: Callable[[Tensor, Tensor], Any] = dist.Normal,
    ) -> None:
        super().__init__()
        self.p_z1, self.sites, self.prior, self.mix, self.law = p_z1, sites, prior, mix, law

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        like = torch.zeros_like(x[..., :1])
        with plate(x):
            z2 = pyro.sample(self.sites[1], self.prior.torch(like).to_event(1))
            z1 = pyro.sample(self.sites[0], self.law(*self.p_z1(z2, torch)).to_event(1))
            u = z1 if self.mix == (1.0, 0.0) else self.mix[0] * z1 + self.mix[1] * z2
            return pyro.sample("x", bernoulli(steep, u, x), obs=x)


class TwoEncoder(nn.Module):
    """One latent given x, and the other given it and x."""

    def __init__(
        self,
        first: Callable[[Tensor], Any],
        second: Callable[[Tensor, Tensor], Any],
        sites: Sequence[str] = ("z1", "z2"),
        down: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.second, self.sites = first, second, sites[::-1] if down else sites

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        with plate(x):
            z = pyro.sample(self.sites[0], self.first(side_of(x)).to_event(1))
            return pyro.sample(self.sites[1], self.second(z, x).to_event(1))


def affine(slope: float, shift: float, make: Callable[[Tensor], Any], cat: bool = False) -> Any:
    """A conditional around ``slope * z + shift * side``; by concatenation if `cat`."""

    def conditional(z: Tensor, x: Tensor) -> Any:
        if cat:
            weights = x.new_tensor([[2.0 * shift / x.shape[-1]]] * x.shape[-1] + [[slope]])
            return make(torch.cat([x, z], -1) @ weights - shift)
        return make(slope * z + shift * side_of(x))

    return conditional


def around_mean(scale: float) -> Callable[[Tensor], Any]:
    return lambda mean: dist.Normal(mean, scale * torch.ones_like(mean))


def one(
    name: str,
    q: Family,
    p: Family = STANDARD,
    decoder: Decoder = steep,
    data: tuple[int, float] = (3, 0.2),
    *,
    places: Iterable[float] = (),
    infinite: bool = False,
    how: str = "quadrature in SciPy",
    model: Callable[[], Any] | None = None,
    guide: Callable[[], Any] | None = None,
    likelihood: LogLikelihood | None = None,
    tolerance: float = 1e-6,
    **options: Any,
) -> Case:
    """A case of one latent; `model` and `guide` are other ways to write the same, `options` are of both.

    Arguments:
        places: Where there is something to see.
        infinite: Whether the loss is, whatever a rule says.
    """
    ndims, prob = data
    shared = {key: options[key] for key in ("site", "scalar") if key in options}

    def make() -> Programs:
        own_model = model() if model else OneLatent(p, decoder, **options)
        return own_model, guide() if guide else Encoder(q.torch, **shared), OneBitData(ndims, prob)

    def right() -> dict[str, float]:
        log_p_x = likelihood or log_likelihood(decoder, ndims)
        return one_latent([q.law(-1.0), q.law(1.0)], p.law(0.0), log_p_x, prob, places, infinite)

    return Case(name, make, right, how, tolerance)


def two(
    name: str,
    q: Callable[[float], Linear],
    encoder: Callable[[], Any],
    *,
    data: tuple[int, float] = (4, 0.2),
    p_z1: tuple[float, float, float] = (0.75, 0.125, 0.5),
    prior: Family = STANDARD,
    mix: tuple[float, float] = (1.0, 0.0),
    sites: Sequence[str] = ("z1", "z2"),
) -> Case:
    """A case of the linear model of two latents; `p_z1` is slope, shift and sd of z1 given z2."""
    ndims, prob = data
    a, b, s = p_z1

    def make() -> Programs:
        model = TwoLatents(lambda z2, m: (a * z2 + b, s * m.ones_like(z2)), sites, prior, mix)
        return model, encoder(), OneBitData(ndims, prob)

    def right() -> dict[str, float]:
        laws, log_p_x = [q(-1.0), q(1.0)], log_likelihood(steep, ndims)
        return two_linear(laws, a, b, s, log_p_x, prob, prior.law(0.0), mix)

    return Case(name, make, right, "closed form for the Gaussians, quadrature for p(x|z1)")


def refuse(name: str, why: str, model: Any = None, guide: Any = None, data: tuple[int, float] = (3, 0.2)) -> Case:
    """A case that is to be refused."""
    return Case(name, lambda: (model or OneLatent(), guide or Encoder(CLOSE.torch), OneBitData(*data)), None, why)
