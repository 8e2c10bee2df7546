"""Programs of one latent, and what is true of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import ExpTransform, SigmoidTransform
from scipy import stats
from scipy.special import expit
from torch import Tensor, nn

from programs.answers import Mixture, normal
from programs.building import Case, Program, bernoulli, gaussian_dimensions, one, plate
from programs.families import (
    CLOSE,
    STANDARD,
    Decoder,
    Family,
    around,
    beyond,
    cauchy,
    family,
    fixed,
    gaussian,
    mixture,
    steep,
    student,
    uniform,
)


def spike(weight: float, place: float, scale: float) -> Family:
    return mixture([1.0 - weight, weight], [1.0, place], [0.5, scale])


#: Irregular places from -3 to 3, always the same.
_SCATTERED = [6.0 * math.modf(0.754877666 * k)[0] - 3.0 for k in range(1, 21)]


def guides() -> list[Case]:
    cases = [one(f"Student t, {df:g} degrees", student(df)) for df in (2.1, 2.5, 3.0, 5.0, 10.0)]
    cases += [
        one("Student t, 3 degrees, n = 300", student(3.0), data=(300, 0.5)),
        one("Student t, 2 degrees", student(2.0), infinite=True, how="no second moment under q"),
        one("Cauchy", cauchy(), infinite=True, how="no second moment under q"),
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


class LearnedPrior(nn.Module):
    """A prior that is a mixture whose weights, as logits, are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, -0.25, 0.0]))
        self.loc = nn.Parameter(torch.tensor([-1.5, 0.0, 1.25]))

    def forward(self, x: Tensor) -> Any:
        """Run it on rows x."""
        rows = x.new_ones(*x.shape[:-1], 1, 1)
        with plate(x):
            parts = dist.Normal(self.loc * rows, 0.5 * rows)
            prior = dist.MixtureSameFamily(dist.Categorical(logits=self.logits * rows), parts)
            z1 = pyro.sample("z1", prior.to_event(1))
            return pyro.sample("x", bernoulli(steep, z1, x), obs=x)


def priors() -> list[Case]:
    weights = np.exp([0.5, -0.25, 0.0]) / np.exp([0.5, -0.25, 0.0]).sum()
    half, half_guide = (
        family(lambda _loc, scale: dist.HalfNormal(scale), stats.halfnorm(), scale, 0.0) for scale in (1.0, 0.5)
    )
    beta = Family(
        lambda side: dist.Beta(0.75 + 0.25 * side, torch.ones_like(side)),
        lambda side: Mixture(((1.0, stats.beta(0.75 + 0.25 * side, 1.0), 0.0, 1.0),)),
    )
    log_normal = Family(
        lambda side: dist.TransformedDistribution(dist.Normal(side, 0.5 * torch.ones_like(side)), [ExpTransform()]),
        lambda side: Mixture(((1.0, stats.lognorm(0.5), 0.0, math.exp(side)),)),
    )

    # Its figures are those of the logit of z, which SciPy has laws for: the prior's is logistic.
    squashed = Family(
        lambda side: dist.TransformedDistribution(dist.Normal(side, torch.ones_like(side)), [SigmoidTransform()]),
        lambda side: normal(side, 1.0),
    )
    unit = Family(uniform(1.0, 0.0, 0.0).torch, lambda _side: Mixture(((1.0, stats.logistic(), 0.0, 1.0),)))

    def bounded(z: Any, m: Any) -> Any:
        return 5.0 * m.tanh(z)

    positive = fixed(beyond(dist.Exponential, stats.expon(), 0.0, 1.0))
    return [
        one(
            "half N(-1, 0.3^2), half N(1, 0.3^2)",
            gaussian(0.3),
            fixed(mixture([0.5, 0.5], [-1, 1], [0.3, 0.3])),
            data=(5, 0.5),
        ),
        one(
            "a learned mixture",
            CLOSE,
            fixed(mixture(weights.tolist(), [-1.5, 0.0, 1.25], [0.5] * 3)),
            model=LearnedPrior,
        ),
        one("spike and slab", CLOSE, fixed(mixture([0.5, 0.5], [0.0, 0.7137], [1.0, 1e-4]))),
        one(
            "a slab and a slight spike",
            CLOSE,
            fixed(mixture([0.99, 0.01], [0.0, -3.7137], [1.0, 1e-5])),
            lambda z, m: 5.0 * z + 15.0,
        ),
        one("a Laplace", CLOSE, family(dist.Laplace, stats.laplace(), 1.0, 0.0)),
        one("a Cauchy", CLOSE, cauchy(1.0, 0.0)),
        one(
            "a Cauchy, and a Cauchy guide",
            cauchy(),
            cauchy(1.0, 0.0),
            bounded,
            how="quadrature in SciPy; KL of two Cauchys is finite",
        ),
        one(
            "a Cauchy, and a Student t of 1.5 degrees",
            student(1.5),
            cauchy(1.0, 0.0),
            lambda z, m: 1.0 * z,
            how="quadrature in SciPy; E|z| is finite",
        ),
        one(
            "uniform from -2 to 2, and a Gaussian guide",
            CLOSE,
            uniform(4.0, 0.0, -2.0),
            infinite=True,
            how="q has mass where p has none",
        ),
        one("uniform from -2 to 2, and a uniform guide", uniform(), uniform(4.0, 0.0, -2.0)),
        one("half-normal, and a Gaussian guide", CLOSE, half, infinite=True, how="q has mass where p has none"),
        one("half-normal, and a half-normal guide", half_guide, half),
        one("half-normal, and a log-normal guide", log_normal, half),
        one("exponential, and a log-normal guide", log_normal, positive),
        one("uniform from 0 to 1, and a beta guide with a peak", beta, uniform(1.0, 0.0, 0.0)),
        one(
            "uniform from 0 to 1, and a squashed Gaussian guide",
            squashed,
            unit,
            lambda z, m: 5.0 * (expit(z) if m is np else z),
        ),
        one("everything at 10,000", gaussian(0.5, 1.0, 1e4), gaussian(1.0, 0.0, 1e4), lambda z, m: 5.0 * (z - 1e4)),
        one("everything times 1e-8", gaussian(5e-9, 1e-8), gaussian(1e-8, 0.0), lambda z, m: 5e8 * z),
        one("everything times 1e8", gaussian(5e7, 1e8), gaussian(1e8, 0.0), lambda z, m: 5e-8 * z),
    ]


def bump(width: float, place: float = -2.1371) -> Decoder:
    """A decoder that says 0 everywhere but in a bump."""
    return lambda z, m: 16.0 * m.exp(-0.5 * ((z - place) / width) ** 2) - 8.0


def sloped(slope: float) -> Decoder:
    return lambda z, m: slope * (z - 0.1234)


def decoders() -> list[Case]:
    cases = [
        one(
            f"a bump of width {width:g}", CLOSE, decoder=bump(width), data=(5, 0.2), places=around(-2.1371, 0.1 * width)
        )
        for width in (1e-1, 1e-2, 1e-3, 1e-4)
    ]
    cases += [
        one(
            f"a bump of width {width:g} under q",
            CLOSE,
            decoder=bump(width, 0.8137),
            data=(5, 0.2),
            places=around(0.8137, 0.1 * width),
        )
        for width in (1e-2, 1e-4)
    ]
    cases += [
        one(f"slope {slope:g}", CLOSE, decoder=sloped(slope), data=(5, 0.2), places=around(0.1234, 0.1 / slope))
        for slope in (1e3, 1e6, 1e9)
    ]
    standard = gaussian(1.0, 0.0)
    return [
        *cases,
        one("a step at an odd place", CLOSE, decoder=lambda z, m: 40.0 * (z > 0.1234) - 20.0, places=[0.1234]),
        one("logits 3 sin(100 z)", CLOSE, decoder=lambda z, m: 3.0 * m.sin(100.0 * z)),
        one("logits 3 sin(2000 z)", CLOSE, decoder=lambda z, m: 3.0 * m.sin(2000.0 * z)),
        one("the prior as a guide, n = 20,000", standard, decoder=lambda z, m: 1.0 * z, data=(20_000, 0.35)),
        one(
            "the prior as a guide, n = 20,000, a flat decoder",
            standard,
            decoder=lambda z, m: 0.3 * z,
            data=(20_000, 0.35),
        ),
        one("n = 100,000", CLOSE, decoder=lambda z, m: 1.0 * z, data=(100_000, 0.2)),
        one("a decoder that knows nothing", CLOSE, decoder=lambda z, m: 0.0 * z - 1.0),
        one(
            "weights of 1e30",
            CLOSE,
            decoder=lambda z, m: 1e30 * z,
            data=(5, 0.2),
            places=[0.0],
            model=lambda: Program(_with_weight, weight=nn.Parameter(torch.tensor(1e30, dtype=torch.double))),
        ),
        one(
            "normal dimensions",
            CLOSE,
            decoder=lambda z, m: 1.0 * z,
            observe=gaussian_dimensions,
            likelihood=lambda c, z: 3 * stats.norm.logpdf(c - z),
            how="closed form and quadrature in SciPy",
        ),
    ]


def _with_weight(self: Any, x: Tensor) -> None:
    like = torch.zeros_like(x[..., :1])
    with plate(x):
        z1 = pyro.sample("z1", STANDARD.torch(like).to_event(1))
        pyro.sample("x", bernoulli(lambda z, m: self.weight * z, z1, x), obs=x)
