"""What a guide is, what it may say of itself, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro
from pyro.distributions.util import broadcast_shape
from torch import Tensor, nn

from pyro_onebit.data import BitsData
from pyro_onebit.distributions import per_row
from pyro_onebit.errors import InputError
from pyro_onebit.nn import Program, Start
from pyro_onebit.registry import GUIDES


class Guide(Program):
    """An amortised posterior (encoder): a Pyro program of rows x that draws every latent of its model.

    What a subclass may declare stands below with its default. A public constant that is none of these is refused
    when the class is registered, for it may be one of them misspelt; a subclass's own begin with an underscore.
    """

    #: Latent layers of the model that it goes with, 1 or 2.
    layers: ClassVar[int] = 1
    #: Where training starts, model included; None: where the recipe says.
    start: ClassVar[Start | None] = None
    #: Whether it starts around what its Gaussian q(z1|x) has learned from random weights in a first stage instead.
    learns_start: ClassVar[bool] = False
    #: How many times the recipe's steps it takes; one that learns its start takes the fewest.
    effort: ClassVar[int] = 2
    #: Its first learning rate, after a first stage if it has one; None: the recipe's.
    lr: ClassVar[float | None] = None
    #: Its last one; None: the recipe's.
    lr_final: ClassVar[float | None] = None
    #: Whether its parameters move where its density is zero.
    moving_support: ClassVar[bool] = False

    #: Takes rows x ``(rows, ndims)``, what is drawn before it ``(rows, 1)``, or both, to a Distribution of one number
    #: a row, Pyro's, torch's or zuko's (`distributions.per_row`); what it takes, its factorisation says.
    q_z1: Callable[..., Any]
    #: With two layers: likewise.
    q_z2: Callable[..., Any]

    def forward(self, x: Tensor) -> None:
        """Draw every latent, each ``(rows, 1)``, given rows x ``(rows, ndims)``, in one plate ``data``."""
        raise NotImplementedError

    def bind_model(self, model: nn.Module) -> None:
        """Called once by `build` with the model, for a guide that needs to know it; this one does not."""

    def optimum(self, data: BitsData) -> float | None:
        """The lowest loss that the family can reach with any decoder, nats per datum; None if it is not known.

        It supposes a standard normal prior: of a model with another one `exact.evaluate` asks `Model.optimum`.
        """
        return None


def _sample(name: str, q: Callable[..., Any], *given: Tensor) -> Tensor:
    """Draw a latent ``(rows, 1)`` given rows x and latents, each ``(rows, …)``, from any library's distribution."""
    rows = broadcast_shape(*(value.shape[:-1] for value in given))
    drawn: Tensor = pyro.sample(name, per_row(q(*given), rows))
    return drawn


class OneLayerGuide(Guide):
    """A guide of the one-layer model: a subclass sets ``q_z1``, a module or method that takes x to q(z1|x).

    Arguments:
        ndims: Dimensions of x.
        prob: Probability of codeword 1 in the data; it sets where training starts.
        arch: The networks.
    """

    def forward(self, x: Tensor) -> None:
        """Draw z1 ``(rows, 1)`` given rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            _sample("z1", self.q_z1, x)


class _TwoLayers(Guide):
    """A guide of the two-layer model: a subclass sets ``q_z1`` and ``q_z2``, modules or methods.

    Arguments: as for `OneLayerGuide`.
    """

    layers: ClassVar[int] = 2
    effort: ClassVar[int] = 5

    def forward(self, x: Tensor) -> None:
        """Draw z1 and z2, each ``(rows, 1)``, given rows x ``(rows, ndims)``."""
        self.register()
        with pyro.plate("data", x.shape[-2], dim=-1):
            self._draw(x)

    def _draw(self, x: Tensor) -> None:
        raise NotImplementedError


class MarkovGuide(_TwoLayers):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`: a subclass sets ``q_z1(x)`` and ``q_z2(z1)``."""

    def _draw(self, x: Tensor) -> None:
        z1 = _sample("z1", self.q_z1, x)
        _sample("z2", self.q_z2, z1)


class SkipGuide(_TwoLayers):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid z_1, x)`: a subclass sets ``q_z1(x)`` and ``q_z2(z1, x)``."""

    def _draw(self, x: Tensor) -> None:
        z1 = _sample("z1", self.q_z1, x)
        _sample("z2", self.q_z2, z1, x)


class TopDownGuide(_TwoLayers):
    r""":math:`q(z_2 \mid x)\, q(z_1 \mid z_2, x)`: a subclass sets ``q_z2(x)`` and ``q_z1(z2, x)``."""

    def _draw(self, x: Tensor) -> None:
        z2 = _sample("z2", self.q_z2, x)
        _sample("z1", self.q_z1, z2, x)


class MeanFieldGuide(_TwoLayers):
    r""":math:`q(z_1 \mid x)\, q(z_2 \mid x)`: a subclass sets ``q_z1(x)`` and ``q_z2(x)``."""

    def _draw(self, x: Tensor) -> None:
        _sample("z1", self.q_z1, x)
        _sample("z2", self.q_z2, x)


#: What has a default; the conditionals have none.
_DECLARED = [name for name in Guide.__annotations__ if name in vars(Guide)]


def _check_guide(name: str, guide: Any) -> None:
    if not (isinstance(guide, type) and issubclass(guide, Guide)):
        raise InputError(f"guide {name!r} is {guide!r}, which does not extend Guide; take OneLayerGuide or so")
    for base in guide.__mro__[: guide.__mro__.index(Guide)]:
        for attribute, value in vars(base).items():
            is_constant = value is None or isinstance(value, int | float | str | Start)
            if is_constant and not attribute.startswith("_") and attribute not in _DECLARED:
                raise InputError(
                    f"guide {name!r} has a constant {attribute!r}; a guide declares {', '.join(_DECLARED)}, and a "
                    f"constant of its own begins with '_'"
                )


GUIDES.check = _check_guide
#: A class decorator that makes a guide known by a name, to `Config`, the command line and worker processes. The class
#: extends `Guide`, and for one layer with least work `OneLayerGuide`; it is called as ``cls(ndims, prob, arch)`` and
#: has a method ``q_z1(x)`` and, with two layers, ``q_z2(z1)``, Distributions of event shape ``(1,)``.
register_guide = GUIDES.register
