"""What a model is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from pyro_onebit.data import BitsData
from pyro_onebit.nn import Program
from pyro_onebit.registry import MODELS


class Model(Program):
    """A generative process: a Pyro program of rows x ``(rows, ndims)``.

    It draws its latents, the top one first, and observes x, all within one plate ``data``.
    """

    #: Latent layers, 1 or 2.
    layers: ClassVar[int] = 1
    #: Takes z1 to p(x|z1).
    p_x: Callable[[Tensor], Any]
    #: With two layers: takes z2 to p(z1|z2).
    p_z1: Callable[[Tensor], Any]

    def forward(self, x: Tensor) -> Any:
        """Run the process against rows x."""
        raise NotImplementedError

    def optimum(self, data: BitsData) -> float | None:
        """What the limit of a guide whose own (`Guide.optimum`) is known becomes under another prior than N(0, 1).

        Nats per datum; None: it is not known.
        """
        return None


#: A class decorator that makes a model known by a name, to `Config`, the command line and worker processes. The class
#: extends `Model` (or `OneLayerModel`, `TwoLayerModel`) and is called as ``cls(ndims, prob, arch)``.
register_model = MODELS.register
