"""Samples alone, held against the exact posterior of a trained model: a thousand Metropolis chains.

python analysis/bring_samples.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_onebit import Config, build, diagnostics, fit
from pyro_onebit.models import Model


@torch.no_grad()
def metropolis(model: Model, x: Tensor, chains: int, moves: int) -> Tensor:
    """The last states ``(chains,)`` of random walks whose law tends to p(z1|x), x being one row."""

    def log_joint(z: Tensor) -> Tensor:
        return model.p_x(z).log_prob(x) - 0.5 * z.squeeze(-1).square()

    z = torch.randn(chains, 1)
    for _ in range(moves):
        proposed = z + torch.randn(chains, 1)
        is_accepted = torch.rand(chains).log() < log_joint(proposed) - log_joint(z)
        z = torch.where(is_accepted[:, None], proposed, z)
    return z.squeeze(-1)


def main(ndims: int = 5, steps: int | None = None, moves: int = 200) -> None:
    config = Config(ndims=ndims, steps=steps)
    model, guide, data = build(config)
    run = fit(model, guide, data, config, quiet=False)
    torch.manual_seed(0)
    samples = [metropolis(model, x, chains=1000, moves=moves) for x in data.codewords]
    assert run.truth is not None
    found = diagnostics.compare_samples(run.truth, samples)
    print(f"n = {ndims}, {moves} moves: {found}")

    distances = run.truth.distances(run.truth.log_posterior)
    print(f"the guide: wasserstein={distances['wasserstein'].tolist()}, ks={distances['ks'].tolist()}")


if __name__ == "__main__":
    main()
