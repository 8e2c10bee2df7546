"""A Gaussian q(z1|x)."""

from __future__ import annotations

from typing import ClassVar

from pyro_onebit.data import BitsData
from pyro_onebit.exact import optimum
from pyro_onebit.guides.base import OneLayerGuide, register_guide
from pyro_onebit.nn import ONE_LAYER, Architecture, CodewordNet


@register_guide("gaussian")
class GaussianGuide(OneLayerGuide):
    r""":math:`q(z_1 \mid x) = N(m(x), v(x))`. Arguments: as for `OneLayerGuide`."""

    learns_start: ClassVar[bool] = True
    effort: ClassVar[int] = 1

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)

    def optimum(self, data: BitsData) -> float:
        """The lowest loss of a Gaussian with any decoder (`exact.optimum`), nats per datum."""
        return optimum(data)
