"""The two-layer guide."""

from __future__ import annotations

from typing import ClassVar

import pyro
from torch import Tensor

from pyro_onebit.data import OneBitData
from pyro_onebit.guides.base import Guide, register_guide
from pyro_onebit.nn import TWO_LAYER, Architecture, CodewordNet, GaussianNet, StretchNet


@register_guide("two_layer")
class TwoLayerGuide(Guide):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, each Gaussian; :math:`q(z_2 \mid x)` is not.

    Arguments: as for `OneLayerGuide`.
    """

    layers: ClassVar[int] = 2

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)
        self.q_z2 = StretchNet(arch, prob, down=False) if arch.stretch else GaussianNet(1, arch.width_z, arch, prob)

    def forward(self, x: Tensor) -> None:
        """Draw z1 and z2, each ``(rows, 1)``, given rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z1 = pyro.sample("z1", self.q_z1(x))
            pyro.sample("z2", self.q_z2(z1))

    def optimum(self, data: OneBitData) -> float:
        """The entropy, nats per datum.

        Let z2 be an increasing function of z1, but for noise, that carries the mixture q(z1) to N(0, 1), and p(z1|z2)
        its inverse; as both conditionals' noise shrinks the loss tends to the entropy.
        """
        return data.entropy
