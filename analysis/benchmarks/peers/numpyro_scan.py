"""The reference models in NumPyro: SVI updates inside one compiled `jax.lax.scan`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.optim import Adam

from peers import CHUNKS, Chunks, Work


def programs(work: Work) -> tuple[Callable[[Array], None], Callable[[Array], None]]:
    """Model and guide."""
    generator = np.random.default_rng(work.seed)

    def initial(sizes: list[int]) -> list[np.ndarray]:
        # Torch's default for a Linear: the peers start from one distribution. Drawn by numpy, for `jax.random` would
        # compile once for every shape, which takes as long as a thousand steps of the small cells.
        layers = [(i**-0.5, shape) for i, o in itertools.pairwise(sizes) for shape in ((o, i), (o,))]
        return [generator.uniform(-bound, bound, shape).astype(np.float32) for bound, shape in layers]

    parameters = {name: initial(sizes) for name, sizes in work.sizes.items()}

    def network(name: str, c: Array) -> Array:
        *hidden, weight, bias = numpyro.param(name, parameters[name])
        for w, b in zip(hidden[::2], hidden[1::2], strict=True):
            c = jax.nn.elu(c @ w.T + b)
        return c @ weight.T + bias

    def normal(name: str, c: Array) -> dist.Distribution:
        mean, raw = jnp.split(network(name, c), 2, axis=-1)
        return dist.Normal(mean, jnp.sqrt(jax.nn.softplus(raw) + work.min_variance)).to_event(1)

    def model(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            latent = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
            if work.layers == 2:
                latent = normal("p_z1", numpyro.sample("z2", latent))
            logits = network("p_x", numpyro.sample("z1", latent))
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            z1 = numpyro.sample("z1", normal("q_z1", x))
            if work.layers == 2:
                numpyro.sample("z2", normal("q_z2", z1))

    return model, guide


def train(work: Work) -> Chunks:
    """Train. The scan is compiled once, for one chunk of steps, and called for every chunk."""
    half = work.rows // 2
    x = jnp.concatenate([jnp.zeros((half, work.ndims)), jnp.ones((work.rows - half, work.ndims))])
    svi = SVI(*programs(work), Adam(lambda step: work.lr * work.decay**step), Trace_ELBO())
    # Compiled in one piece: operation by operation, as it runs otherwise, it takes several times as long.
    state = jax.jit(svi.init)(random.key(work.seed), x)

    @jax.jit
    def chunk(state: Any, x: Array) -> tuple[Any, Array]:
        state, losses = jax.lax.scan(lambda state, _: svi.update(state, x), state, length=work.steps // CHUNKS)
        return state, losses.mean() / work.rows

    for _ in range(CHUNKS):
        state, loss = chunk(state, x)
        # float() waits for the device, so that the clock reads finished work. Nothing overwrites the parameters.
        yield svi.get_params(state), float(loss)
