"""The generative processes, as Pyro models."""

from __future__ import annotations

import pyro
from pyro.distributions import Independent, Normal
from torch import Tensor

from pyro_onebit.networks import ONE_LAYER, TWO_LAYER, Architecture, BernoulliNet, GaussianNet, Program, StretchNet

__all__ = ["MODELS", "OneLayerModel", "TwoLayerModel", "standard_normal"]


def standard_normal(like: Tensor) -> Independent:
    """N(0, 1) with event shape ``(1,)``, of the dtype and device of `like`: the top latent's prior."""
    return Normal(like.new_zeros(1), like.new_ones(1)).to_event(1)


class OneLayerModel(Program):
    r""":math:`z_1 \sim N(0, 1)`, :math:`x_i \mid z_1 \sim \mathrm{Bernoulli}(\sigma(f_i(z_1)))`.

    Arguments:
        ndims: Dimensions of x.
        prob: Probability of codeword 1 in the data; it sets where training starts.
        arch: The networks.
    """

    layers = 1

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.p_x = BernoulliNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> Tensor:
        """Run the process against rows x of shape ``(rows, ndims)``; z1 is ``(rows, 1)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z1 = pyro.sample("z1", standard_normal(x))
            return pyro.sample("x", self.p_x(z1), obs=x)


class TwoLayerModel(Program):
    r""":math:`z_2 \sim N(0, 1)`, :math:`z_1 \mid z_2 \sim N(m(z_2), v(z_2))`, x given z1 as in one layer.

    Arguments: as for `OneLayerModel`.
    """

    layers = 2

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.p_z1 = StretchNet(arch, prob, down=True) if arch.stretch else GaussianNet(1, arch.width_z, arch, prob)
        self.p_x = BernoulliNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> Tensor:
        """Run the process against rows x of shape ``(rows, ndims)``; z1 and z2 are ``(rows, 1)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z2 = pyro.sample("z2", standard_normal(x))
            z1 = pyro.sample("z1", self.p_z1(z2))
            return pyro.sample("x", self.p_x(z1), obs=x)


#: The model of each number of layers.
MODELS = {1: OneLayerModel, 2: TwoLayerModel}
