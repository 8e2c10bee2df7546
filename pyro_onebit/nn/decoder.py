"""p(x|z1)."""

from __future__ import annotations

from pyro.distributions import Independent
from torch import Tensor

from pyro_onebit.distributions import BinaryBernoulli
from pyro_onebit.nn.architecture import Architecture, Start
from pyro_onebit.nn.network import Network


class BernoulliNet(Network):
    """p(x|z1): independent Bernoulli dimensions given z1 ``(..., 1)``, event ``(ndims,)``."""

    centre: Tensor
    offset: Tensor
    slope: Tensor
    bend: Tensor

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(1, arch.width_x, [ndims], arch, prob)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().reset_parameters(start, prob)
        self._set(**dict(zip(("centre", "offset", "slope", "bend"), start.logits(prob), strict=True)))

    def forward(self, c: Tensor) -> Independent:
        """The conditional given z1."""
        d = c - self.centre
        return BinaryBernoulli(logits=self.net(c) + self.offset + (self.slope + self.bend * d) * d).to_event(1)
