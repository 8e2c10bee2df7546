"""A normalising flow."""

from __future__ import annotations

from typing import ClassVar

from pyro_onebit.data import BitsData
from pyro_onebit.guides.base import OneLayerGuide, register_guide
from pyro_onebit.nn import ONE_LAYER, Architecture, SplineNet, Start

# Six of the spline's standard deviations to either side, it ends just over the threshold and far out.
FLOW_START = Start(separation=3.0, centre="threshold", slope=8000.0, variance_bias=-1.26)


@register_guide("flow")
class FlowGuide(OneLayerGuide):
    """A standard normal through a spline that depends on x. Arguments: as for `OneLayerGuide`."""

    start: ClassVar[Start] = FLOW_START
    effort: ClassVar[int] = 6
    lr: ClassVar[float] = 2e-2
    _bins: ClassVar[int] = 16

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = SplineNet(ndims, self._bins, arch, prob)

    def optimum(self, data: BitsData) -> float:
        """The entropy, nats per datum.

        A truncated normal is an increasing, smooth function of a standard normal, and a monotone spline comes as
        close to one as its bins are many.
        """
        return data.entropy
