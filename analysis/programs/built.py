"""The package's own models and guides, as `build` makes them: their densities are read, their figures are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from programs.answers import LogLikelihood, Read, Values, normal, one_latent, two_nested
from programs.building import Case
from programs.families import around
from pyro_onebit import Config, build


def in_numpy(function: Callable[[Tensor], Any]) -> Callable[[Values], Any]:
    """A torch function of ``(..., 1)`` as one of numpy's arrays, event dimension taken away."""

    def call(z: Values) -> Any:
        with torch.no_grad():
            outs = [function(block) for block in torch.from_numpy(np.array(z)).reshape(-1, 1).split(2**15)]
        if isinstance(outs[0], tuple):
            return tuple(torch.cat(parts).reshape(z.shape).numpy() for parts in zip(*outs, strict=True))
        return torch.cat(outs).reshape(z.shape).numpy()

    return call


def parameters(conditional: Any) -> tuple[Tensor, Tensor]:
    """Mean and sd of a Gaussian."""
    base = conditional.base_dist
    return base.loc, base.scale


def read(config: Config) -> tuple[Any, Any, Tensor, LogLikelihood]:
    """The built programs in double precision, the codewords, and log p(x|z1)."""
    model, guide, data = build(config)
    own_model: Any = copy.deepcopy(model).double().eval()
    own_guide: Any = copy.deepcopy(guide).double().eval()
    x = data.codewords.double()
    return own_model, own_guide, x, lambda c, z: in_numpy(lambda z1: own_model.p_x(z1).log_prob(x[c]))(z)


def log_q(guide: Any, row: Tensor, z: Tensor) -> Tensor:
    """log q(z|x) of a row ``(1, ndims)`` at z ``(count, 1)``."""
    return guide.q_z1(row).log_prob(z[:, None, :]).squeeze(-1)


def posterior(log_p_x: Callable[[Values], Values], edges: Values) -> Read:
    """p(z|x) under a standard normal prior."""
    evidence = normal(0.0, 1.0).log_expectation(log_p_x, edges)
    return Read(lambda z: stats.norm.logpdf(z) + log_p_x(z) - evidence, edges)


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
                laws.append(posterior(partial(log_p_x, c), edges))
            else:
                laws.append(Read(in_numpy(partial(log_q, guide, row)), edges))
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
        edges = around(float(stats.norm.isf(config.prob)), 1e-3, 30.0, 6)
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
