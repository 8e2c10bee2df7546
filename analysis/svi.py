"""Stochastic variational inference in plain Pyro, and what it found held against the truth.

python analysis/svi.py
"""

from __future__ import annotations

from pathlib import Path

import pyro
import pyro.distributions as dist
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, tensor
from torch.distributions import constraints

from pyro_onebit import OneBitData, Run, bounds, exact, plots, save_run


def model(x: Tensor) -> None:
    slope = pyro.param("slope", tensor(1.0))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=slope * z1[..., None].expand(*z1.shape, x.shape[-1])).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    loc = pyro.param("loc", tensor([-0.5, 0.5]))
    scale = pyro.param("scale", tensor([1.0, 1.0]), constraint=constraints.positive)
    codeword = x[:, 0].long()
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(loc[codeword], scale[codeword]))


def main(ndims: int = 5, steps: int = 1000, out: Path = Path("results/svi")) -> None:
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    data = OneBitData(ndims)
    x = data.rows(1000)
    svi = SVI(model, guide, ClippedAdam({"lr": 0.1, "lrd": 0.01 ** (1 / steps)}), Trace_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(steps)]

    figures = exact.evaluate(model, guide, data)
    print(f"loss: the last estimate {losses[-1]:.4f}, exactly {figures['loss']:.5f} nats per datum")
    print(f"the lowest of a Gaussian guide {exact.optimum(ndims):.5f}, of any guide {data.entropy:.5f}")

    joint = exact.solve_joint(model, guide, data, figures.truth)
    print("  K  sampled IWAE      exact expectation")
    for particles, expected in zip((1, 10, 100), joint.law.expected_bound([1, 10, 100]) @ data.probs, strict=True):
        bound = bounds.importance_bound(model, guide, data, particles, repeats=1000)
        print("{:3d}  {:.4f} ± {:.4f}  {:.4f}".format(particles, *bound.average, expected))

    run = Run.of(model, guide, data, objective="elbo", seed=0, steps=steps, history={"loss": losses})
    save_run(run, out)
    plots.save(plots.posterior_figure([(run.config, figures.truth)]), out / "posterior.png")


if __name__ == "__main__":
    main()
