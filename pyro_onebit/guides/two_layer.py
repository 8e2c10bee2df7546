"""The guides of the two-layer model: four ways in which q(z1, z2|x) may factorise, each of Gaussian conditionals."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pyro_onebit.data import BitsData
from pyro_onebit.guides.base import Guide, MarkovGuide, MeanFieldGuide, SkipGuide, TopDownGuide, register_guide
from pyro_onebit.guides.limits import mean_field_optimum, top_down_optimum
from pyro_onebit.nn import PLAIN, TWO_LAYER, Architecture, CodewordNet, Start, between_latents

#: Where q(z2|x) starts: on either side of the prior's middle.
_TOP = Start(separation=0.9, centre="balanced", variance_bias=-1.3)


class _Unrestricted(Guide):
    """One whose q(z2|x) may be nearly anything."""

    learns_start: ClassVar[bool] = True
    effort: ClassVar[int] = 1
    lr: ClassVar[float] = 1e-4
    lr_final: ClassVar[float] = 1e-5

    def optimum(self, data: BitsData) -> float:
        """The entropy, nats per datum.

        Let z2 be an increasing function of z1, but for noise, that carries the mixture q(z1) to N(0, 1), and p(z1|z2)
        its inverse; as both conditionals' noise shrinks the loss tends to the entropy.
        """
        return data.entropy


@register_guide("two_layer")
class TwoLayerGuide(_Unrestricted, MarkovGuide):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, each Gaussian; :math:`q(z_2 \mid x)` is not.

    Arguments: as for `OneLayerGuide`.
    """

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)
        self.q_z2 = between_latents(arch, prob, down=False)


@register_guide("two_layer_skip")
class TwoLayerSkipGuide(_Unrestricted, SkipGuide):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1, x)`, each Gaussian; :math:`q(z_2 \mid x)` is not.

    Arguments: as for `OneLayerGuide`.
    """

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)
        self.q_z2 = between_latents(arch, prob, down=False, context_dim=ndims)


@register_guide("top_down")
class GaussianTopDownGuide(TopDownGuide):
    r""":math:`q(z_2 \mid x)\, q(z_1 \mid z_2, x)`, each Gaussian, :math:`q(z_2 \mid x)` as well.

    Arguments: as for `OneLayerGuide`.
    """

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.q_z2 = CodewordNet(ndims, _of_top(arch), prob)
        self.q_z1 = between_latents(arch, prob, down=True, context_dim=ndims)

    def optimum(self, data: BitsData) -> float | None:
        """The lowest loss with any decoder and any Gaussian p(z1|z2) (`top_down_optimum`), nats; of one bit."""
        return top_down_optimum(data.ndims, data.prob) if data.bits == 1 else None


@register_guide("mean_field")
class GaussianMeanFieldGuide(MeanFieldGuide):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid x)`, each Gaussian. Arguments: as for `OneLayerGuide`."""

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = TWO_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)
        self.q_z2 = CodewordNet(ndims, _of_top(arch), prob)

    def optimum(self, data: BitsData) -> float | None:
        """The lowest loss with any decoder and any Gaussian p(z1|z2) (`mean_field_optimum`), nats; of one bit."""
        return mean_field_optimum(data.ndims, data.prob) if data.bits == 1 else None


def _of_top(arch: Architecture) -> Architecture:
    """The architecture with a start for the top latent, where it has one for the lower."""
    return arch if arch.start == PLAIN else replace(arch, start=_TOP)
