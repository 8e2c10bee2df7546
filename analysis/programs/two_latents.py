"""Programs of two latents, and what is true of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from scipy import stats
from torch import Tensor

from programs.answers import Linear, Mixture, StudentT, normal, two_nested
from programs.building import Case, Conditional, TwoEncoder, TwoLatents, affine, around_mean, side_of, two
from programs.families import CLOSE, Family, around, family, fixed, log_likelihood, mixture, steep, student
from pyro_onebit import OneBitData


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
        case("sites named z2 and z1 the other way round", CLOSE, 0.625, 0.375, 0.75, sites=("z2", "z1")),
        case(
            "a Laplace prior for z2", CLOSE, 0.625, 0.375, 0.75, prior=family(dist.Laplace, stats.laplace(), 1.0, 0.0)
        ),
        case(
            "a prior of z2 of two modes",
            CLOSE,
            0.625,
            0.375,
            0.75,
            prior=fixed(mixture([0.5, 0.5], [-1.0, 1.0], [0.25, 0.25])),
        ),
        case("x given both latents", CLOSE, 0.625, 0.375, 0.75, mix=(0.75, 0.5)),
        case("x given the sum of independent latents", CLOSE, -0.5, 0.75, 0.5, p_z1=(0.0, 0.0, 1.0), mix=(1.0, 1.0)),
        case("a narrow p(z1|z2)", CLOSE, 0.75, 0.0, 1e-3, p_z1=(0.75, 0.125, 1e-3), down=True),
        case("a narrow q(z2|z1)", CLOSE, 0.625, 0.375, 1e-4),
        case("a narrow q(z1|z2,x)", CLOSE, 0.5, 0.375, 1e-4, down=True),
        case("a Student t of 5 degrees for z1", student(5.0), 0.625, 0.0, 0.75),
        case("a Student t of 5 degrees for z2 given z1", CLOSE, 0.625, 0.375, 0.75, noise=5.0),
        case("a spike of 0.1, sd 1e-4, in q(z1|x)", narrow, 0.625, 0.0, 0.75),
        case("a spike of 0.1, sd 1e-4, in q(z2|x)", narrow, 0.0, 0.375, 0.75, down=True),
        Case(
            "a Cauchy for z2 given z1",
            lambda: (TwoLatents(), TwoEncoder(CLOSE.torch, _cauchy_given), OneBitData(4, 0.2)),
            lambda: {"loss": math.inf},
            "no second moment under q",
        ),
        nested("a funnel", lambda z2, m: (0.0 * z2, m.exp(1.5 * z2)), 0.25),
        nested("a bent p(z1|z2)", _bent, 0.25),
        nested("a steep p(z1|z2)", _jump, 0.25),
    ]


def _cauchy_given(z1: Tensor, _x: Tensor) -> Any:
    return dist.Cauchy(0.5 * z1, 0.5 * torch.ones_like(z1))


def _bent(z2: Any, m: Any) -> tuple[Any, Any]:
    return m.tanh(2.0 * z2), 0.25 + 0.125 * m.cos(z2)


def _jump(z2: Any, m: Any) -> tuple[Any, Any]:
    return m.tanh(50.0 * (z2 - 0.3137)), 0.25 * m.ones_like(z2)


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
            around(0.3137, 1e-3, 1.0, 8),
        )

    return Case(
        name,
        lambda: (TwoLatents(p_z1), TwoEncoder(CLOSE.torch, second), OneBitData(4, 0.2)),
        right,
        "a rule within a rule, in numpy",
    )
