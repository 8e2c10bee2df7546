"""A mixture of Gaussians."""

from __future__ import annotations

from typing import ClassVar

from pyro_onebit.guides.base import OneLayerGuide, register_guide
from pyro_onebit.nn import ONE_LAYER, Architecture, MixtureNet, Start


@register_guide("mixture")
class MixtureGuide(OneLayerGuide):
    r""":math:`q(z_1 \mid x) = \sum_k \pi_k(x)\, N(m_k(x), v_k(x))` of four Gaussians.

    Its optimum is not known. Arguments: as for `OneLayerGuide`.
    """

    start: ClassVar[Start] = Start(separation=1.0, centre="threshold", slope=200.0, variance_bias=-2.4)
    _components: ClassVar[int] = 4

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = MixtureNet(ndims, self._components, arch, prob)
