"""A Gaussian restricted to an interval."""

from __future__ import annotations

from typing import ClassVar

from pyro_onebit.data import BitsData
from pyro_onebit.guides.base import OneLayerGuide, register_guide
from pyro_onebit.nn import ONE_LAYER, Architecture, Start, TruncatedNet


@register_guide("truncated")
class TruncatedGuide(OneLayerGuide):
    """A Gaussian restricted to an interval between learned thresholds, what an ideal posterior is.

    Arguments: as for `OneLayerGuide`.
    """

    start: ClassVar[Start] = Start(separation=0.002, centre="threshold", slope=8000.0)
    moving_support: ClassVar[bool] = True

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = TruncatedNet(ndims, arch, prob)

    def optimum(self, data: BitsData) -> float:
        """The entropy, nats per datum.

        The prior restricted to where a codeword has its share is the posterior of a decoder with hard thresholds there,
        and the steeper a decoder is, the closer it comes to that one.
        """
        return data.entropy
