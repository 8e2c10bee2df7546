"""The two-layer generative process."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
from torch import Tensor

from pyro_onebit.distributions import standard_normal
from pyro_onebit.models.base import Model, register_model
from pyro_onebit.nn import TWO_LAYER, Architecture, BernoulliNet, between_latents


@register_model("two_layer")
class TwoLayerModel(Model):
    r""":math:`z_2 \sim N(0, 1)`, :math:`z_1 \mid z_2 \sim N(m(z_2), v(z_2))`, x given z1 as in one layer.

    Arguments: as for `OneLayerModel`.
    """

    layers: ClassVar[int] = 2

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.p_z1 = between_latents(arch, prob, down=True)
        self.p_x = BernoulliNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> Any:
        """Run the process against rows x of shape ``(rows, ndims)``; z1 and z2 are ``(rows, 1)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z2 = pyro.sample("z2", standard_normal(x))
            z1 = pyro.sample("z1", self.p_z1(z2))
            return pyro.sample("x", self.p_x(z1), obs=x)
