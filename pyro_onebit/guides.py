"""The amortised posteriors, as Pyro guides, and the registry of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyro
from torch import Tensor, nn

from pyro_onebit.data import InputError
from pyro_onebit.networks import ONE_LAYER, TWO_LAYER, Architecture, CodewordNet, GaussianNet, Program, StretchNet

__all__ = ["GUIDES", "GaussianGuide", "TwoLayerGuide", "register_guide"]

#: Guide classes by name.
GUIDES: dict[str, type[nn.Module]] = {}

G = TypeVar("G", bound=type[nn.Module])


def register_guide(name: str) -> Callable[[G], G]:
    """A class decorator that makes a guide known by `name`.

    The class is called as ``cls(ndims, prob, arch)``, has a class attribute ``layers`` (1 or 2, the
    model it goes with), a method ``q_z1(x)`` and, with two layers, ``q_z2(z1)``.

    Raises:
        InputError: If the name is taken.
    """

    def add(cls: G) -> G:
        if name in GUIDES:
            raise InputError(f"guide {name!r} is already registered; choose another name")
        GUIDES[name] = cls
        return cls

    return add


@register_guide("gaussian")
class GaussianGuide(Program):
    r""":math:`q(z_1 \mid x) = N(m(x), v(x))`.

    Arguments:
        ndims: Dimensions of x.
        prob: Probability of codeword 1 in the data; it sets where training starts.
        arch: The networks.
    """

    layers = 1

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.q_z1 = CodewordNet(ndims, arch, prob)

    def forward(self, x: Tensor) -> None:
        """Draw z1 ``(rows, 1)`` given rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            pyro.sample("z1", self.q_z1(x))


@register_guide("two_layer")
class TwoLayerGuide(Program):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, each Gaussian; :math:`q(z_2 \mid x)` is not.

    Arguments: as for `GaussianGuide`.
    """

    layers = 2

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
