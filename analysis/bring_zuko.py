"""A guide of another library: a neural spline flow of zuko (https://zuko.readthedocs.io) as q(z1|x).

python analysis/bring_zuko.py
onebit --import analysis/bring_zuko.py compare --guides gaussian nsf --layers 1
"""

from __future__ import annotations

import zuko

from pyro_onebit import Config, OneLayerGuide, build, exact, fit, register_guide
from pyro_onebit.nn import Architecture


@register_guide("nsf")
class SplineFlowGuide(OneLayerGuide):
    """A standard normal through a rational-quadratic spline that depends on x (Durkan et al. 2019)."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__()
        self.q_z1 = zuko.flows.NSF(features=1, context=ndims, hidden_features=(arch.width_x, arch.width_x))


def main(ndims: int = 5, steps: int | None = None) -> None:
    config = Config(ndims=ndims, guide="nsf", steps=steps)
    run = fit(*build(config), config, quiet=False)
    above = run.metrics["loss"] - run.data.entropy
    gaussian = exact.optimum(ndims) - run.data.entropy
    print(f"n = {ndims}: {above:.4f} nats above the entropy; no Gaussian comes closer than {gaussian:.4f}")


if __name__ == "__main__":
    main()
