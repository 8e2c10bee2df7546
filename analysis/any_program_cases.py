"""Programs that a user may bring, each with what is true of it by `any_program_answers`, or with a refusal.

A guide or a prior is a `Family`: it is written twice, once in torch and once in SciPy, from the same numbers. A decoder
is one function of z that takes torch or numpy as its second argument. `side` is -1 for codeword 0 and 1 for codeword 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from any_program_answers import (
    LogLikelihood,
    Linear,
    Mixture,
    Read,
    StudentT,
    Values,
    normal,
    one_latent,
    two_linear,
    two_nested,
)
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from scipy import stats
from scipy.special import log_expit
from torch import Tensor, nn

from pyro_onebit import Config, OneBitData, build

Decoder = Callable[[Any, Any], Any]
Programs = tuple[Any, Any, OneBitData]
INFINITE = ("loss", "kl_posterior")


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


# --- densities, written twice -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A density for each side: as torch makes it from sides of any shape, and as SciPy does from one."""

    torch: Callable[[Tensor], Any]
    law: Callable[[float], Mixture]


def family(
    make: Callable[[Tensor, Tensor], Any],
    base: Any,
    scale: float = 0.5,
    slope: float = 1.0,
    shift: float = 0.0,
    reach: float = 250.0,
) -> Family:
    """A law of location ``slope * side + shift`` and a scale."""
    return Family(
        lambda side: make(slope * side + shift, scale * torch.ones_like(side)),
        lambda side: Mixture(((1.0, base, slope * side + shift, scale),), reach),
    )


def gaussian(scale: float = 0.5, slope: float = 1.0, shift: float = 0.0) -> Family:
    return family(dist.Normal, stats.norm(), scale, slope, shift)


def student(df: float, scale: float = 0.5, slope: float = 1.0) -> Family:
    def make(loc: Tensor, scale: Tensor) -> Any:
        return dist.StudentT(df * torch.ones_like(loc), loc, scale)

    return family(make, StudentT(df), scale, slope, reach=690.0 if df < 3 else 250.0)


def cauchy(scale: float = 0.5, slope: float = 1.0) -> Family:
    return family(dist.Cauchy, stats.cauchy(), scale, slope)


def uniform(width: float = 1.0, slope: float = 1.0, shift: float = -0.5) -> Family:
    return family(lambda low, width: dist.Uniform(low, low + width), stats.uniform(), width, slope, shift)


def beyond(make: Callable[[Tensor], Any], base: Any, slope: float = 1.0, scale: float = 0.5) -> Family:
    """A law on the half line from slope * side on."""

    def moved(low: Tensor, scale: Tensor) -> Any:
        return dist.TransformedDistribution(make(torch.ones_like(low)), [AffineTransform(low, scale)])

    return family(moved, base, scale, slope)


def mixture(weights: Sequence[float], places: Sequence[float], scales: Sequence[float]) -> Family:
    """Gaussians at ``place * side``."""

    def make(side: Tensor) -> Any:
        w, m, s = (side.new_tensor(values) for values in (weights, places, scales))
        side = side[..., None]
        return dist.MixtureSameFamily(
            dist.Categorical(probs=w * torch.ones_like(side)), dist.Normal(m * side, s * torch.ones_like(side))
        )

    def law(side: float) -> Mixture:
        parts = zip(weights, places, scales, strict=True)
        return Mixture(tuple((w, stats.norm(), m * side, s) for w, m, s in parts))

    return Family(make, law)


def fixed(own: Family) -> Family:
    """The same density for either side: a prior."""
    return Family(lambda side: own.torch(torch.ones_like(side)), lambda _side: own.law(1.0))


STANDARD = gaussian(1.0, 0.0)
CLOSE = gaussian(0.5)


def steep(z: Any, _m: Any) -> Any:
    return 5.0 * z


def log_likelihood(decoder: Decoder, ndims: int) -> LogLikelihood:
    """log p(x_c|z1) of Bernoulli dimensions."""
    return lambda c, z: ndims * log_expit(decoder(z, np) * (2 * c - 1))


# --- programs ---------------------------------------------------------------------------------------------------------


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
    """A program that is a function, with what is to be its submodules or parameters."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x) if list(self.parameters()) else self.function(x)


def plate(x: Tensor) -> Any:
    return pyro.plate("data", x.shape[-2], dim=-1)


class OneLatent(Program):
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
        super().__init__(self.run)
        self.prior, self.decoder, self.site, self.scalar = prior, decoder, site, scalar
        self.observe, self.observed = observe, observed

    def run(self, x: Tensor) -> Any:
        like = torch.zeros_like(x[..., :1])
        with plate(x):
            if self.scalar:
                z = pyro.sample(self.site, self.prior.torch(like[..., 0]))[..., None]
            else:
                z = pyro.sample(self.site, self.prior.torch(like).to_event(1))
            return pyro.sample(self.observed, self.observe(self.decoder, z, x), obs=x)


class Encoder(Program):
    """q(z|x), as `OneLatent` draws z."""

    def __init__(self, make: Callable[[Tensor], Any], site: str = "z1", scalar: bool = False) -> None:
        super().__init__(self.run)
        self.make, self.site, self.scalar = make, site, scalar

    def run(self, x: Tensor) -> Any:
        side = side_of(x)
        with plate(x):
            return pyro.sample(self.site, self.make(side[..., 0]) if self.scalar else self.make(side).to_event(1))


#: Mean and sd of z1 given z2, in torch or numpy.
Conditional = Callable[[Any, Any], tuple[Any, Any]]


def tilted(z2: Any, m: Any) -> tuple[Any, Any]:
    return 0.75 * z2 + 0.125, 0.5 * m.ones_like(z2)


class TwoLatents(Program):
    """z2 from N(0, 1), a Gaussian z1 given z2, and x given z1."""

    def __init__(
        self, p_z1: Conditional = tilted, decoder: Decoder = steep, sites: Sequence[str] = ("z1", "z2")
    ) -> None:
        super().__init__(self.run)
        self.p_z1, self.decoder, self.sites = p_z1, decoder, sites

    def run(self, x: Tensor) -> Any:
        like = torch.zeros_like(x[..., :1])
        with plate(x):
            z2 = pyro.sample(self.sites[1], dist.Normal(like, torch.ones_like(like)).to_event(1))
            z1 = pyro.sample(self.sites[0], dist.Normal(*self.p_z1(z2, torch)).to_event(1))
            return pyro.sample("x", bernoulli(self.decoder, z1, x), obs=x)


class TwoEncoder(Program):
    """One latent given x, and the other given it and x."""

    def __init__(
        self,
        first: Callable[[Tensor], Any],
        second: Callable[[Tensor, Tensor], Any],
        sites: Sequence[str] = ("z1", "z2"),
        down: bool = False,
    ) -> None:
        super().__init__(self.run)
        self.first, self.second, self.sites = first, second, sites[::-1] if down else sites

    def run(self, x: Tensor) -> Any:
        with plate(x):
            z = pyro.sample(self.sites[0], self.first(side_of(x)).to_event(1))
            return pyro.sample(self.sites[1], self.second(z, x).to_event(1))


# --- how a case is made -----------------------------------------------------------------------------------------------


def one(
    name: str,
    q: Family,
    p: Family = STANDARD,
    decoder: Decoder = steep,
    data: tuple[int, float] = (3, 0.2),
    *,
    places: Iterable[float] = (),
    infinite: Sequence[str] = (),
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
        infinite: Which figures are infinite, whatever a rule says.
    """
    ndims, prob = data
    shared = {key: options[key] for key in ("site", "scalar") if key in options}

    def make() -> Programs:
        own_model = model() if model else OneLatent(p, decoder, **options)
        return own_model, guide() if guide else Encoder(q.torch, **shared), OneBitData(ndims, prob)

    def right() -> dict[str, float]:
        log_p_x = likelihood or log_likelihood(decoder, ndims)
        if infinite and "loss" in infinite:
            finite = one_latent([q.law(-1.0), q.law(1.0)], p.law(0.0), log_p_x, prob, places, skip=INFINITE)
            return {**finite, **dict.fromkeys(infinite, math.inf)}
        return one_latent([q.law(-1.0), q.law(1.0)], p.law(0.0), log_p_x, prob, places)

    return Case(name, make, right, how, tolerance)


def two(
    name: str,
    q: Callable[[float], Linear],
    encoder: Callable[[], Any],
    *,
    data: tuple[int, float] = (4, 0.2),
    sites: Sequence[str] = ("z1", "z2"),
    model: Callable[[], Any] | None = None,
) -> Case:
    """A case of the linear model of two latents."""
    ndims, prob = data

    def make() -> Programs:
        return model() if model else TwoLatents(sites=sites), encoder(), OneBitData(ndims, prob)

    def right() -> dict[str, float]:
        return two_linear([q(-1.0), q(1.0)], 0.75, 0.125, 0.5, log_likelihood(steep, ndims), prob)

    return Case(name, make, right, "closed form for the Gaussians, quadrature for p(x|z1)")


def refuse(name: str, why: str, model: Any = None, guide: Any = None, data: tuple[int, float] = (3, 0.2)) -> Case:
    """A case that is to be refused."""
    return Case(name, lambda: (model or OneLatent(), guide or Encoder(CLOSE.torch), OneBitData(*data)), None, why)


# --- one latent: guides -----------------------------------------------------------------------------------------------


def spike(weight: float, place: float, scale: float) -> Family:
    return mixture([1.0 - weight, weight], [1.0, place], [0.5, scale])


#: Irregular places from -3 to 3, always the same.
_SCATTERED = [6.0 * math.modf(0.754877666 * k)[0] - 3.0 for k in range(1, 21)]


def guides() -> list[Case]:
    cases = [one(f"Student t, {df:g} degrees", student(df)) for df in (2.1, 2.5, 3.0, 5.0, 10.0)]
    cases += [
        one("Student t, 3 degrees, n = 300", student(3.0), data=(300, 0.5)),
        one("Student t, 2 degrees", student(2.0), infinite=INFINITE, how="no second moment under q"),
        one("Cauchy", cauchy(), infinite=INFINITE, how="no second moment under q"),
        one("Laplace", family(dist.Laplace, stats.laplace())),
        one("logistic", family(dist.Logistic, stats.logistic())),
        one("uniform", uniform()),
        one("uniform, wide", uniform(12.0, 1.0, -6.0)),
        one("exponential, from side on", beyond(dist.Exponential, stats.expon())),
        one("gamma of shape 0.5: an infinite peak", beyond(lambda o: dist.Gamma(0.5 * o, o), stats.gamma(0.5), 0.0)),
        one("gamma of shape 0.5, from side on", beyond(lambda o: dist.Gamma(0.5 * o, o), stats.gamma(0.5))),
        one("gamma of shape 3, from side on", beyond(lambda o: dist.Gamma(3.0 * o, o), stats.gamma(3.0))),
        one("a very wide Gaussian", gaussian(1e3)),
        one("a very narrow Gaussian", gaussian(1e-8)),
        one("two narrow modes far apart", mixture([0.5, 0.5], [-30.0, 30.0], [1e-3, 1e-3])),
        one("a Gaussian a million sd from the prior", gaussian(0.5, 1.0, 1e6)),
        one("twenty spikes", mixture([0.6] + [0.02] * 20, [1.0, *_SCATTERED], [0.5] + [1e-4] * 20)),
        one("modes of four scales", mixture([0.4, 0.3, 0.2, 0.1], [1.0, 1.1, 1.11, 1.111], [1.0, 0.1, 1e-3, 1e-5])),
    ]
    for weight in (0.3, 0.05, 1e-2, 1e-3, 1e-4):
        for scale in (1e-2, 1e-4, 1e-6):
            cases.append(one(f"a spike of {weight:g}, sd {scale:g}", spike(weight, 1.3137, scale)))
        cases.append(one(f"a mode of {weight:g} at 15", spike(weight, 15.0, 0.1)))
        cases.append(one(f"a mode of {weight:g} at 1000, sd 1e-4", spike(weight, 1000.0, 1e-4)))
    cases += [
        one("a spike of 0.05 with its sd, at 1.3", mixture([0.95, 0.05], [1.0, 1.3], [0.5, 1e-6])),
        one("a far mode of 0.0005", mixture([0.9995, 0.0005], [1.0, 15.0], [0.5, 0.1])),
    ]
    return cases


# --- one latent: priors -----------------------------------------------------------------------------------------------


class LearnedPrior(nn.Module):
    """A prior that is a mixture whose weights, as logits, are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, -0.25, 0.0]))
        self.loc = nn.Parameter(torch.tensor([-1.5, 0.0, 1.25]))

    def forward(self, x: Tensor) -> Any:
        rows = x.new_ones(*x.shape[:-1], 1, 1)
        with plate(x):
            parts = dist.Normal(self.loc * rows, 0.5 * rows)
            prior = dist.MixtureSameFamily(dist.Categorical(logits=self.logits * rows), parts)
            z1 = pyro.sample("z1", prior.to_event(1))
            return pyro.sample("x", bernoulli(steep, z1, x), obs=x)


def priors() -> list[Case]:
    weights = np.exp([0.5, -0.25, 0.0]) / np.exp([0.5, -0.25, 0.0]).sum()
    half = family(lambda _loc, scale: dist.HalfNormal(scale), stats.halfnorm(), 1.0, 0.0)
    beta = Family(
        lambda side: dist.Beta(0.75 + 0.25 * side, torch.ones_like(side)),
        lambda side: Mixture(((1.0, stats.beta(0.75 + 0.25 * side, 1.0), 0.0, 1.0),)),
    )
    log_normal = Family(
        lambda side: dist.TransformedDistribution(dist.Normal(side, 0.5 * torch.ones_like(side)), [ExpTransform()]),
        lambda side: Mixture(((1.0, stats.lognorm(0.5), 0.0, math.exp(side)),)),
    )

    def bounded(z: Any, m: Any) -> Any:
        return 5.0 * m.tanh(z)

    positive = fixed(beyond(dist.Exponential, stats.expon(), 0.0, 1.0))
    return [
        one("half N(-1, 0.3^2), half N(1, 0.3^2)", gaussian(0.3), fixed(mixture([0.5, 0.5], [-1, 1], [0.3, 0.3])),
            data=(5, 0.5)),
        one("a learned mixture", CLOSE, fixed(mixture(weights.tolist(), [-1.5, 0.0, 1.25], [0.5] * 3)),
            model=LearnedPrior),
        one("spike and slab", CLOSE, fixed(mixture([0.5, 0.5], [0.0, 0.7137], [1.0, 1e-4]))),
        one("a slab and a slight spike", CLOSE, fixed(mixture([0.99, 0.01], [0.0, -3.7137], [1.0, 1e-5])),
            lambda z, m: 5.0 * z + 15.0),
        one("a Laplace", CLOSE, family(dist.Laplace, stats.laplace(), 1.0, 0.0)),
        one("a Cauchy", CLOSE, cauchy(1.0, 0.0)),
        one("a Cauchy, and a Cauchy guide", cauchy(), cauchy(1.0, 0.0), bounded,
            how="quadrature in SciPy; KL of two Cauchys is finite"),
        one("a Cauchy, and a Student t of 1.5 degrees", student(1.5), cauchy(1.0, 0.0), lambda z, m: 1.0 * z,
            how="quadrature in SciPy; E|z| is finite"),
        one("uniform from -2 to 2, and a Gaussian guide", CLOSE, uniform(4.0, 0.0, -2.0), infinite=INFINITE,
            how="q has mass where p has none"),
        one("uniform from -2 to 2, and a uniform guide", uniform(), uniform(4.0, 0.0, -2.0)),
        one("half-normal, and a Gaussian guide", CLOSE, half, infinite=INFINITE, how="q has mass where p has none"),
        one("half-normal, and a half-normal guide", family(lambda _l, s: dist.HalfNormal(s), stats.halfnorm(), 0.5, 0.0),
            half),
        one("half-normal, and a truncated guide", log_normal, half),
        one("exponential, and a log-normal guide", log_normal, positive),
        one("uniform from 0 to 1, and a beta guide with a peak", beta, uniform(1.0, 0.0, 0.0)),
        one("everything at 10,000", gaussian(0.5, 1.0, 1e4), gaussian(1.0, 0.0, 1e4), lambda z, m: 5.0 * (z - 1e4)),
        one("everything times 1e-8", gaussian(5e-9, 1e-8), gaussian(1e-8, 0.0), lambda z, m: 5e8 * z),
        one("everything times 1e8", gaussian(5e7, 1e8), gaussian(1e8, 0.0), lambda z, m: 5e-8 * z),
    ]


# --- one latent: decoders ---------------------------------------------------------------------------------------------


def bump(width: float, place: float = -2.1371) -> Decoder:
    """A decoder that says 0 everywhere but in a bump."""
    return lambda z, m: 16.0 * m.exp(-0.5 * ((z - place) / width) ** 2) - 8.0


def around(place: float, smallest: float, largest: float = 10.0) -> list[float]:
    steps = np.geomspace(smallest, largest, 60)
    return [*(place - steps), place, *(place + steps)]


def decoders() -> list[Case]:
    cases = [
        one(f"a bump of width {width:g}", CLOSE, decoder=bump(width), data=(5, 0.2),
            places=around(-2.1371, 0.1 * width)) for width in (1e-1, 1e-2, 1e-3, 1e-4)
    ]
    cases += [
        one(f"a bump of width {width:g} under q", CLOSE, decoder=bump(width, 0.8137), data=(5, 0.2),
            places=around(0.8137, 0.1 * width)) for width in (1e-2, 1e-4)
    ]
    cases += [
        one(f"slope {slope:g}", CLOSE, decoder=lambda z, m, slope=slope: slope * (z - 0.1234), data=(5, 0.2),
            places=around(0.1234, 0.1 / slope)) for slope in (1e3, 1e6, 1e9)
    ]
    standard = gaussian(1.0, 0.0)
    return [
        *cases,
        one("a step at an odd place", CLOSE, decoder=lambda z, m: 40.0 * (z > 0.1234) - 20.0, places=[0.1234]),
        one("logits 3 sin(100 z)", CLOSE, decoder=lambda z, m: 3.0 * m.sin(100.0 * z)),
        one("logits 3 sin(2000 z)", CLOSE, decoder=lambda z, m: 3.0 * m.sin(2000.0 * z)),
        one("the prior as a guide, n = 20,000", standard, decoder=lambda z, m: 1.0 * z, data=(20_000, 0.35)),
        one("n = 1,000,000", CLOSE, decoder=lambda z, m: 1.0 * z, data=(1_000_000, 0.2)),
        one("a decoder that knows nothing", CLOSE, decoder=lambda z, m: 0.0 * z - 1.0),
        one("weights of 1e30", CLOSE, decoder=lambda z, m: 1e30 * z, data=(5, 0.2), places=[0.0],
            guide=None, model=lambda: Program(_with_weight, weight=nn.Parameter(torch.tensor(1e30, dtype=torch.double)))),
        one("normal dimensions", CLOSE, decoder=lambda z, m: 1.0 * z, observe=gaussian_dimensions,
            likelihood=lambda c, z: 3 * stats.norm.logpdf(c - z), how="closed form and quadrature in SciPy"),
    ]


def _with_weight(self: Any, x: Tensor) -> None:
    like = torch.zeros_like(x[..., :1])
    with plate(x):
        z1 = pyro.sample("z1", STANDARD.torch(like).to_event(1))
        pyro.sample("x", bernoulli(lambda z, m: self.weight * z, z1, x), obs=x)


# --- one latent: ways to write a program ------------------------------------------------------------------------------


class PyroGuide(PyroModule):
    """A Gaussian whose place and width are Pyro parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = PyroParam(torch.tensor(0.75))
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
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
    guide = Encoder(gaussian(0.7).torch)
    guide.q_z1 = lambda x: gaussian(0.2).torch(side_of(x)).to_event(1)
    return guide


def squashed() -> Family:
    def make(side: Tensor) -> Any:
        return dist.TransformedDistribution(dist.Normal(side, torch.ones_like(side)), [SigmoidTransform()])

    return Family(make, lambda _side: normal(0.0, 1.0))


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
    ]


# --- two latents ------------------------------------------------------------------------------------------------------


def affine(slope: float, shift: float, make: Callable[[Tensor, float], Any], cat: bool = False) -> Any:
    """A conditional around ``slope * z + shift * side``; by concatenation if `cat`."""

    def conditional(z: Tensor, x: Tensor) -> Any:
        if cat:
            weights = x.new_tensor([[2.0 * shift / x.shape[-1]]] * x.shape[-1] + [[slope]])
            return make(torch.cat([x, z], -1) @ weights - shift)
        return make(slope * z + shift * side_of(x))

    return conditional


def around_mean(scale: float) -> Callable[[Tensor], Any]:
    return lambda mean: dist.Normal(mean, scale * torch.ones_like(mean))


def two_layers() -> list[Case]:
    narrow = mixture([0.9, 0.1], [1.0, 1.3137], [0.5, 1e-4])

    def case(name: str, first: Family, slope: float, shift: float, scale: float, **options: Any) -> Case:
        down, cat, noise = options.pop("down", False), options.pop("cat", False), options.pop("noise", None)
        make = around_mean(scale)
        law = normal(0.0, scale)
        if noise is not None:
            law = Mixture(((1.0, StudentT(noise), 0.0, scale),))

            def make(mean: Tensor) -> Any:
                ones = torch.ones_like(mean)
                return dist.StudentT(noise * ones, mean, scale * ones)

        conditional = affine(slope, shift, make, cat)
        sites = options.get("sites", ("z1", "z2"))
        return two(
            name,
            lambda side: Linear(first.law(side), slope, shift * side, law, down),
            lambda: TwoEncoder(first.torch, conditional, sites, down),
            **options,
        )

    return [
        case("q(z1|x) q(z2|z1)", CLOSE, 0.625, 0.0, 0.75),
        case("q(z1|x) q(z2|z1,x)", CLOSE, 0.625, 0.375, 0.75),
        case("q(z2|x) q(z1|z2,x)", CLOSE, 0.5, 0.375, 0.25, down=True),
        case("q(z2|x) q(z1|z2)", CLOSE, 0.75, 0.0, 0.25, down=True),
        case("q(z1|x) q(z2|x)", CLOSE, 0.0, 0.75, 0.5),
        case("q(z1|x) q(z2|z1,x), concatenated", CLOSE, 0.625, 0.375, 0.75, cat=True),
        case("q(z2|x) q(z1|z2,x), concatenated", CLOSE, 0.5, 0.375, 0.25, down=True, cat=True),
        case("sites named theta and eta", CLOSE, 0.625, 0.375, 0.75, sites=("theta", "eta")),
        case("sites named b and a, q(z2|x) first", CLOSE, 0.5, 0.375, 0.25, down=True, sites=("b", "a")),
        case("a narrow q(z2|z1)", CLOSE, 0.625, 0.375, 1e-4),
        case("a narrow q(z1|z2,x)", CLOSE, 0.5, 0.375, 1e-4, down=True),
        case("a Student t of 5 degrees for z1", student(5.0), 0.625, 0.0, 0.75),
        case("a Student t of 5 degrees for z2 given z1", CLOSE, 0.625, 0.375, 0.75, noise=5.0),
        case("a spike of 0.1, sd 1e-4, in q(z1|x)", narrow, 0.625, 0.0, 0.75),
        case("a spike of 0.1, sd 1e-4, in q(z2|x)", narrow, 0.0, 0.375, 0.75, down=True),
        Case("a Cauchy for z2 given z1", lambda: (TwoLatents(), TwoEncoder(CLOSE.torch, _cauchy_given), OneBitData(4, 0.2)),
             lambda: {"loss": math.inf}, "no second moment under q"),
        nested("a bent p(z1|z2)", _bent, 0.25),
        nested("a steep p(z1|z2)", _jump, 0.25),
    ]


def _cauchy_given(z1: Tensor, _x: Tensor) -> Any:
    return dist.Cauchy(0.5 * z1, 0.5 * torch.ones_like(z1))


def _bent(z2: Any, m: Any) -> tuple[Any, Any]:
    return m.tanh(2.0 * z2), 0.25 + 0.125 * m.cos(z2)


def _jump(z2: Any, m: Any) -> tuple[Any, Any]:
    return m.tanh(200.0 * (z2 - 0.3137)), 0.25 * m.ones_like(z2)


def nested(name: str, p_z1: Conditional, scale: float) -> Case:
    """A guide q(z1|x) N(0.75 tanh(2 z1) + 0.25 side, scale^2), and a p(z1|z2) that is not linear."""

    def second(z1: Tensor, x: Tensor) -> Any:
        return dist.Normal(0.75 * torch.tanh(2.0 * z1) + 0.25 * side_of(x), scale)

    def right() -> dict[str, float]:
        return two_nested(
            [CLOSE.law(-1.0), CLOSE.law(1.0)],
            lambda c, z1: (0.75 * np.tanh(2.0 * z1) + 0.25 * (2 * c - 1), scale * np.ones_like(z1)),
            lambda z2: p_z1(z2, np),
            log_likelihood(steep, 4),
            0.2,
            around(0.3137, 1e-4),
        )

    return Case(
        name,
        lambda: (TwoLatents(p_z1), TwoEncoder(CLOSE.torch, second), OneBitData(4, 0.2)),
        right,
        "a rule within a rule, in numpy",
    )


# --- the package's own, as built --------------------------------------------------------------------------------------


def in_numpy(function: Callable[[Tensor], Any]) -> Callable[[Values], Any]:
    """A torch function of ``(..., 1)`` as one of numpy's arrays, event dimension taken away."""

    def call(z: Values) -> Any:
        with torch.no_grad():
            out = function(torch.from_numpy(np.ascontiguousarray(z)).reshape(-1, 1))
        parts = out if isinstance(out, tuple) else (out,)
        arrays = tuple(part.reshape(z.shape).numpy() for part in parts)
        return arrays if isinstance(out, tuple) else arrays[0]

    return call


def parameters(conditional: Any) -> tuple[Tensor, Tensor]:
    """Mean and sd of a Gaussian."""
    base = conditional.base_dist
    return base.loc, base.scale


def read(config: Config) -> tuple[Any, Any, Tensor, LogLikelihood]:
    """The built programs in double precision, the codewords, and log p(x|z1)."""
    model, guide, data = build(config)
    model, guide, x = copy.deepcopy(model).double().eval(), copy.deepcopy(guide).double().eval(), data.codewords.double()
    given = [in_numpy(lambda z, row=row: model.p_x(z).log_prob(row)) for row in x]
    return model, guide, x, lambda c, z: given[c](z)


def built_one(name: str, how: str, **settings: Any) -> Case:
    """A one-layer guide as `build` makes it."""
    config = Config(ndims=5, prob=0.2, guide=name, **settings)

    def right() -> dict[str, float]:
        _, guide, x, log_p_x = read(config)
        cut = float(stats.norm.isf(config.prob))
        edges = np.array(around(cut, 1e-9, 30.0))
        prior = normal(0.0, 1.0)
        laws: list[Any] = []
        for c in (0, 1):
            row = x[c : c + 1]
            if name == "prior":
                laws.append(prior)
            elif name == "gaussian":
                loc, scale = parameters(guide.q_z1(row))
                laws.append(normal(loc.item(), scale.item()))
            elif name == "oracle":
                evidence = prior.log_expectation(lambda z, c=c: log_p_x(c, z), edges)
                laws.append(Read(lambda z, c=c, e=evidence: stats.norm.logpdf(z) + log_p_x(c, z) - e, edges))
            else:
                law = in_numpy(lambda z, row=row: guide.q_z1(row).log_prob(z[:, None, :]).squeeze(-1))
                laws.append(Read(law, edges))
        return one_latent(laws, prior, log_p_x, config.prob, edges)

    settled = ", ".join(str(value) for value in settings.values())
    return Case(f"build: {name}{', ' + settled if settled else ''}", lambda: build(config), right, how)


def built_two(preset: str) -> Case:
    """Two layers as `build` makes them."""
    config = Config(ndims=5, layers=2, prob=0.2, preset=preset)

    def right() -> dict[str, float]:
        model, guide, x, log_p_x = read(config)
        laws = [normal(*(part.item() for part in parameters(guide.q_z1(x[c : c + 1])))) for c in (0, 1)]
        q_z2 = in_numpy(lambda z1: parameters(guide.q_z2(z1)))
        p_z1 = in_numpy(lambda z2: parameters(model.p_z1(z2)))
        edges = around(float(stats.norm.isf(config.prob)), 1e-6)
        return two_nested(laws, lambda _c, z1: q_z2(z1), p_z1, log_p_x, config.prob, edges)

    return Case(f"build: two layers, {preset}", lambda: build(config), right, "a rule within a rule, in numpy", 1e-5)


def own() -> list[Case]:
    by_density = "the guide's own densities, read, under a rule of its own"
    return [
        built_one("gaussian", "its mean and sd, read; quadrature in SciPy"),
        built_one("gaussian", "its mean and sd, read; quadrature in SciPy", preset="reference"),
        built_one("prior", "quadrature in SciPy"),
        built_one("oracle", "p(x|z1), read; the posterior by quadrature in SciPy"),
        built_one("mixture", by_density),
        built_one("truncated", by_density),
        built_one("flow", by_density),
        built_two("default"),
        built_two("reference"),
    ]


# --- to be refused ----------------------------------------------------------------------------------------------------


class Larger(dist.Normal):
    """A density that is too large."""

    factor = math.e

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + math.log(self.factor)


class SlightlyLarger(Larger):
    """By a thousandth."""

    factor = 1.001


class Elsewhere(dist.Normal):
    """Draws that are not of its density."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return super().rsample(sample_shape) + 0.3

    def sample(self, sample_shape: Any = ()) -> Tensor:
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
        pyro.factor("penalty", -z1[..., 0] ** 2)
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

    three = [(name, scalar) for name in ("z3", "z2", "z1")]
    model = OneLatent()

    def unnormalised(z: Tensor, _m: Any) -> Any:
        return tilted(z, torch)

    class Growing(TwoLatents):
        """p(z1|z2) is no density."""

        def run(self, x: Tensor) -> Any:
            like = torch.zeros_like(x[..., :1])
            with plate(x):
                z2 = pyro.sample("z2", dist.Normal(like, torch.ones_like(like)).to_event(1))
                z1 = pyro.sample("z1", Larger(*tilted(z2, torch)).to_event(1))
                return pyro.sample("x", bernoulli(steep, z1, x), obs=x)

    following = affine(0.625, 0.0, around_mean(0.75))
    growing = affine(0.625, 0.0, lambda mean: Larger(mean, 0.75 * torch.ones_like(mean)))
    noisy = Encoder(lambda side: dist.Normal(side + torch.randn_like(side), 0.5))
    return [
        refuse("a q that is e times too large", "q is no density", guide=Encoder(too_large(Larger).torch)),
        refuse("a q that is 0.1% too large", "q is no density", guide=Encoder(too_large(SlightlyLarger).torch)),
        refuse("a prior that is e times too large", "p is no density", OneLatent(too_large(Larger, 0.0))),
        refuse("draws 0.3 beside their density", "q is not what is drawn",
               guide=Encoder(family(Elsewhere, stats.norm()).torch)),
        refuse("a conditional prior e times too large", "p(z1|z2) is no density", Growing(),
               TwoEncoder(CLOSE.torch, following)),
        refuse("a conditional q e times too large", "q(z2|z1) is no density", TwoLatents(),
               TwoEncoder(CLOSE.torch, growing)),
        refuse("a NaN for a mean", "nothing is known", guide=with_parameter(math.nan, "mean")),
        refuse("a scale of exp(1e30)", "no number for it", guide=with_parameter(1e30, "log scale")),
        refuse("NaN for codeword 1 only", "nothing is known",
               guide=Encoder(lambda side: dist.Normal(torch.where(side > 0, math.nan, side), 0.5, validate_args=False))),
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
        refuse("a guide that draws one more", "the model has none", model,
               drawing(("z1", scalar), ("z2", scalar))),
        refuse("a model that observes nothing", "no x", drawing(("z1", scalar))),
        refuse("a scaled guide", "what is trained is no ELBO", guide=poutine.scale(Encoder(CLOSE.torch), 0.5)),
        refuse("a scaled model", "what is trained is no ELBO", poutine.scale(OneLatent(), 0.5)),
        refuse("a masked guide", "what is trained is no ELBO", guide=masked),
        refuse("a model with a factor", "p is no density", penalised),
        refuse("a guide with noise of its own", "its density is not known", guide=noisy),
        refuse("a guide that mixes its rows", "no q(z|x) of one x",
               guide=Encoder(lambda side: dist.Normal(side - side.mean(0), 0.5))),
        refuse("AutoDelta", "no density", model, AutoDelta(model)),
        refuse("AutoIAFNormal", "one joint latent for all rows", model, AutoIAFNormal(model)),
        refuse("a guide that raises", "it fails", guide=lambda x: 1 / 0),
    ]


def all_cases() -> list[Case]:
    """Every case, by section."""
    far = one("a mean of 1e30", gaussian(1.0, 1e30), decoder=lambda z, m: 0.0 * z, how="quadrature in SciPy",
              guide=lambda: with_parameter(1e30, "mean"))
    sections = {
        "guide": guides(), "prior": priors(), "decoder": decoders(), "program": [*ways(), far], "two": two_layers(),
        "own": own(), "refuse": refusals(),
    }
    return [
        Case(f"{section}: {case.name}", case.make, case.right, case.how, case.tolerance)
        for section, cases in sections.items()
        for case in cases
    ]
