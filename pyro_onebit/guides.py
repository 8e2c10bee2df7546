"""The amortised posteriors, as Pyro guides, and the registry of their names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, TypeVar

import pyro
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyro_onebit.data import InputError
from pyro_onebit.networks import (
    ONE_LAYER,
    TWO_LAYER,
    Architecture,
    CodewordNet,
    GaussianNet,
    MixtureNet,
    Program,
    SplineNet,
    Start,
    StretchNet,
    TruncatedNet,
)

__all__ = [
    "GUIDES",
    "FlowGuide",
    "GaussianGuide",
    "MixtureGuide",
    "OneLayerGuide",
    "PriorGuide",
    "TruncatedGuide",
    "TwoLayerGuide",
    "register_guide",
]

#: Guide classes by name.
GUIDES: dict[str, type[nn.Module]] = {}

G = TypeVar("G", bound=type[nn.Module])


def register_guide(name: str) -> Callable[[G], G]:
    """A class decorator that makes a guide known by `name`.

    The class is an ``nn.Module`` called as ``cls(ndims, prob, arch)``; it is a Pyro program of rows x and has a
    method ``q_z1(x)`` and, with two layers, ``q_z2(z1)``, Distributions of event shape ``(1,)``. Class
    attributes, none of which it must have: ``layers`` (1 or 2, the model it goes with; 1); ``start`` (where
    training starts, model included), ``effort`` (how many times the recipe's steps it takes) and ``lr`` (its first
    learning rate), which otherwise are the recipe's; ``moving_support`` (whether parameters move where its
    density is zero; False). For one layer the least work is to extend `OneLayerGuide`.

    Raises:
        InputError: If the name is taken, or is not of letters, digits, ``_`` and ``-``: directories are named after it.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"guide {name!r} cannot be called that; take letters, digits, '_' and '-'")

    def add(cls: G) -> G:
        if name in GUIDES:
            raise InputError(f"guide {name!r} is already registered; choose another name")
        GUIDES[name] = cls
        return cls

    return add


class OneLayerGuide(Program):
    """A guide of the one-layer model: a subclass sets ``q_z1``, a module or method that takes x to q(z1|x).

    Arguments:
        ndims: Dimensions of x.
        prob: Probability of codeword 1 in the data; it sets where training starts.
        arch: The networks.
    """

    layers: ClassVar[int] = 1
    q_z1: Callable[[Tensor], Independent]

    def forward(self, x: Tensor) -> None:
        """Draw z1 ``(rows, 1)`` given rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            pyro.sample("z1", self.q_z1(x))


@register_guide("gaussian")
class GaussianGuide(OneLayerGuide):
    r""":math:`q(z_1 \mid x) = N(m(x), v(x))`. Arguments: as for `OneLayerGuide`."""

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)


@register_guide("mixture")
class MixtureGuide(OneLayerGuide):
    r""":math:`q(z_1 \mid x) = \sum_k \pi_k(x)\, N(m_k(x), v_k(x))` of `components` Gaussians.

    Arguments: as for `OneLayerGuide`.
    """

    start: ClassVar[Start] = Start(separation=1.0, centre="threshold", slope=200.0, variance_bias=-2.4)
    components: ClassVar[int] = 4

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = MixtureNet(ndims, self.components, arch, prob)


@register_guide("flow")
class FlowGuide(OneLayerGuide):
    """A standard normal through a spline that depends on x. Arguments: as for `OneLayerGuide`."""

    # Six of the spline's standard deviations to either side, it ends just over the threshold and far out.
    start: ClassVar[Start] = Start(separation=3.0, centre="threshold", slope=8000.0, variance_bias=-1.26)
    effort: ClassVar[int] = 3
    lr: ClassVar[float] = 2e-2
    bins: ClassVar[int] = 16

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = SplineNet(ndims, self.bins, arch, prob)


@register_guide("truncated")
class TruncatedGuide(OneLayerGuide):
    """A Gaussian truncated at a learned threshold, what an ideal posterior is. Arguments: as for `OneLayerGuide`."""

    start: ClassVar[Start] = Start(separation=0.002, centre="threshold", slope=8000.0)
    moving_support: ClassVar[bool] = True

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = TruncatedNet(ndims, arch, prob)


@register_guide("prior")
class PriorGuide(OneLayerGuide):
    """The prior, whatever x is: a reference; nothing is learned. Arguments: as for `OneLayerGuide`."""

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()

    def q_z1(self, x: Tensor) -> Independent:
        """N(0, 1) for each of rows x ``(..., ndims)``."""
        return Normal(x.new_zeros(*x.shape[:-1], 1), 1.0).to_event(1)


@register_guide("two_layer")
class TwoLayerGuide(Program):
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
