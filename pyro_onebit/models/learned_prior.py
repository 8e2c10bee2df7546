"""The one-layer generative process under a prior that is learned."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
from torch import Tensor

from pyro_onebit.data import BitsData
from pyro_onebit.models.base import Model, register_model
from pyro_onebit.nn import ONE_LAYER, Architecture, BernoulliNet, MixturePriorNet


@register_model("learned_prior")
class LearnedPriorModel(Model):
    r""":math:`z_1 \sim \sum_k \pi_k\, N(m_k, v_k)`, a mixture of two Gaussians with parameters; x as in one layer.

    Arguments: as for `OneLayerModel`.
    """

    layers: ClassVar[int] = 1

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.prior = MixturePriorNet(arch, prob)
        self.p_x = BernoulliNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> Any:
        """Run the process against rows x of shape ``(rows, ndims)``; z1 is ``(rows, 1)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            z1 = pyro.sample("z1", self.prior(x))
            return pyro.sample("x", self.p_x(z1), obs=x)

    def optimum(self, data: BitsData) -> float:
        """The entropy, nats per datum, of every family that comes as close as one likes to a Gaussian.

        Let each codeword's q(z1|x) be a component of the prior, and the decoder a threshold between them: the further
        apart they are, the closer the loss comes to it. In two layers it is p(z1) = E p(z1|z2) that becomes such a
        mixture.
        """
        return data.entropy
