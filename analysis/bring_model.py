"""A model with another prior: z1 ~ Laplace(0, 1) in place of the standard normal.

python analysis/bring_model.py
onebit --import analysis/bring_model.py study --models one_layer laplace_prior --layers 1
"""

from __future__ import annotations

from typing import Any

import pyro
from pyro.distributions import Laplace
from torch import Tensor

from pyro_onebit import Config, OneLayerModel, build, fit, register_model


@register_model("laplace_prior")
class LaplacePriorModel(OneLayerModel):
    """z1 ~ Laplace(0, 1), and x given z1 as in `OneLayerModel`."""

    def forward(self, x: Tensor) -> Any:
        """Run the process against rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", Laplace(x.new_zeros(1), x.new_ones(1)).to_event(1))
            return pyro.sample("x", self.p_x(z1), obs=x)


def main(ndims: int = 5, steps: int | None = None) -> None:
    for model in ("one_layer", "laplace_prior"):
        config = Config(ndims=ndims, model=model, steps=steps)
        run = fit(*build(config), config, quiet=False)
        above = run.metrics["loss"] - run.data.entropy
        print(f"{model}, n = {ndims}, a Gaussian guide: {above:.4f} nats above the entropy")


if __name__ == "__main__":
    main()
