"""The reference models in NumPyro: SVI updates inside one compiled `jax.lax.scan`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.optim import Adam

from peers import Layers, OnChunk, Work

Parameters = list[tuple[Array, Array]]
Net = tuple[Callable[..., Any], Callable[..., Any]]


def dense_net(sizes: list[int], generator: np.random.Generator) -> Net:
    """Linear layers with ELU between them, as the pair of functions that `numpyro.module` takes.

    Numpy draws the initial parameters: `jax.random` would compile once for every shape, which takes
    as long as a thousand steps of the small cells.
    """

    def init(key: Array, input_shape: tuple[int, ...]) -> tuple[None, Parameters]:
        # torch's default for a Linear, weight and bias alike: the peers start from one distribution.
        def uniform(fan_in: int, *shape: int) -> Array:
            return jnp.asarray(generator.uniform(-(fan_in**-0.5), fan_in**-0.5, shape), jnp.float32)

        pairs = itertools.pairwise(sizes)
        return None, [(uniform(fan_in, fan_in, fan_out), uniform(fan_in, fan_out)) for fan_in, fan_out in pairs]

    def apply(parameters: Parameters, c: Array) -> Array:
        *hidden, (weight, bias) = parameters
        for w, b in hidden:
            c = jax.nn.elu(c @ w + b)
        return c @ weight + bias

    return init, apply


def normal(net: Callable[[Array], Array], c: Array, min_variance: float) -> dist.Distribution:
    mean, raw = jnp.split(net(c), 2, axis=-1)
    return dist.Normal(mean, jnp.sqrt(jax.nn.softplus(raw) + min_variance)).to_event(1)


def programs(work: Work) -> tuple[Callable[[Array], None], Callable[[Array], None]]:
    """Model and guide."""
    generator = np.random.default_rng(work.seed)
    nets = {
        name: dense_net([inputs, *[width] * work.hidden_layers, outputs], generator)
        for name, (inputs, width, outputs) in work.networks.items()
    }

    def module(name: str) -> Any:
        return numpyro.module(name, nets[name], input_shape=(work.rows, work.networks[name][0]))

    def model(x: Array) -> None:
        p_x = module("p_x")
        p_z1 = module("p_z1") if work.layers == 2 else None
        prior = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
        with numpyro.plate("data", x.shape[0]):
            if p_z1 is None:
                z1 = numpyro.sample("z1", prior)
            else:
                z2 = numpyro.sample("z2", prior)
                z1 = numpyro.sample("z1", normal(p_z1, z2, work.min_variance))
            numpyro.sample("x", dist.Bernoulli(logits=p_x(z1)).to_event(1), obs=x)

    def guide(x: Array) -> None:
        q_z1 = module("q_z1")
        q_z2 = module("q_z2") if work.layers == 2 else None
        with numpyro.plate("data", x.shape[0]):
            z1 = numpyro.sample("z1", normal(q_z1, x, work.min_variance))
            if q_z2 is not None:
                numpyro.sample("z2", normal(q_z2, z1, work.min_variance))

    return model, guide


def train(work: Work, on_chunk: OnChunk) -> None:
    """Train; a snapshot is the networks' parameters, which are immutable and need no copy.

    The scan is compiled once, for one chunk of steps, and called for every chunk.
    """
    half = work.rows // 2
    x = jnp.concatenate([jnp.zeros((half, work.ndims)), jnp.ones((work.rows - half, work.ndims))])
    svi = SVI(*programs(work), Adam(lambda step: work.lr * work.decay**step), Trace_ELBO())
    # Compiled in one piece: operation by operation, as it runs otherwise, it takes several times as long.
    state = jax.jit(svi.init)(random.key(work.seed), x)

    @jax.jit
    def chunk(state: Any, x: Array) -> tuple[Any, Array]:
        state, losses = jax.lax.scan(
            lambda state, _: svi.update(state, x), state, None, length=work.steps // work.chunks
        )
        return state, losses.mean() / work.rows

    for _ in range(work.chunks):
        state, loss = chunk(state, x)
        # float() waits for the device, so that the clock reads finished work.
        on_chunk(partial(svi.get_params, state), float(loss))


def layers(snapshot: Callable[[], dict[str, Parameters]]) -> Layers:
    """NumPyro's parameters by network; its weights are stored as ``(in, out)``."""
    return {
        name.removesuffix("$params"): [(weight.T, bias) for weight, bias in parameters]
        for name, parameters in snapshot().items()
    }
