"""The one-layer generative process."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
from torch import Tensor

from pyro_onebit.distributions import standard_normal
from pyro_onebit.models.base import Model, register_model
from pyro_onebit.nn import ONE_LAYER, Architecture, BernoulliNet


@register_model("one_layer")
class OneLayerModel(Model):
    r""":math:`z_1 \sim N(0, 1)`, :math:`x_i \mid z_1 \sim \mathrm{Bernoulli}(\sigma(f_i(z_1)))`.

    Arguments:
        ndims: Dimensions of x.
        prob: Probability of codeword 1 in the data; it sets where training starts.
        arch: The networks.
    """

    layers: ClassVar[int] = 1

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.p_x = BernoulliNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> Any:
        """Run the process against rows x of shape ``(rows, ndims)``; z1 is ``(rows, 1)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z1 = pyro.sample("z1", standard_normal(x))
            return pyro.sample("x", self.p_x(z1), obs=x)
