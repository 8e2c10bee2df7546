"""The networks' sizes and coordinates, and where training starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pyro_onebit.data import ideal_threshold
from pyro_onebit.errors import InputError

#: Networks larger than these are no use to one or two scalar latents, and a file that asks for them is forged.
_WIDEST, _DEEPEST = 4096, 64


@dataclass(frozen=True)
class Start:
    r"""Where training starts: skips around the networks, which are what is learned.

    Arguments:
        separation: The means of q(z1|x) for the two codewords differ by twice this.
        centre: What lies halfway between those means: ``zero``; ``balanced``, where they average to 0 over
            the data, as an optimal Gaussian q(z1|x) does under a standard normal prior; ``threshold``, where
            an ideal latent is cut in two.
        slope: Slope of the logits of p(x|z1) in z1; they are zero between the two means.
        variance_bias: Added to the input of every variance's softplus.
        delta: Width around the threshold of z2 inside which it is seen linearly (`StretchNet`).
        skip: Slope of the skips between z1 and the stretched z2 (`StretchNet`).
        spread: Slope of the first hidden layer between z1 and z2, whose units start with their
            bends evenly over the latents' range: a network of one input learns a local correction
            as soon as one unit bends near it. None: the library's initial weights.
        head: What the initial weights of the linear heads between z1 and z2 are multiplied by.
    """

    separation: float = 0.0
    centre: Literal["zero", "balanced", "threshold"] = "zero"
    slope: float = 0.0
    variance_bias: float = 0.0
    delta: float = 1.0
    skip: float = 0.0
    spread: float | None = None
    head: float = 1.0

    def means(self, prob: float) -> tuple[float, float]:
        """Where the means of q(z1|x) start, for codewords 0 and 1."""
        centres = {"zero": 0.0, "balanced": self.separation * (1.0 - 2.0 * prob), "threshold": ideal_threshold(prob)}
        centre = centres[self.centre]
        return centre - self.separation, centre + self.separation


#: No skips: the original's start, in which the latents carry nothing yet.
PLAIN = Start()


@dataclass(frozen=True)
class Architecture:
    """The networks' sizes and coordinates, and where training starts.

    Arguments:
        width_x: Width of the hidden layers between x and z1.
        width_z: Width of the hidden layers between z1 and z2.
        hidden_layers: Number of hidden ELU layers of each network.
        average: Whether x enters q(z1|x) divided by ndims, and the weights on it start multiplied by
            ndims. That changes no initial value, but the speed of learning: Adam moves each weight
            by the learning rate, and where ndims inputs are equal, their sum by ndims times that.
        stretch: Whether the networks between z1 and z2 see z2 on a logarithmic scale.
        start: The skips and initial weights.
    """

    width_x: int = 10
    width_z: int = 100
    hidden_layers: int = 3
    average: bool = False
    stretch: bool = False
    start: Start = field(default=PLAIN)

    def __post_init__(self) -> None:
        for name, most in (("width_x", _WIDEST), ("width_z", _WIDEST), ("hidden_layers", _DEEPEST)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 1 to {most}")


REFERENCE = Architecture()
ONE_LAYER = Architecture(average=True, start=Start(separation=1.0, centre="balanced", slope=20.0, variance_bias=-2.4))
TWO_LAYER = Architecture(
    width_z=48,
    average=True,
    stretch=True,
    start=Start(separation=3.0, slope=20.0, variance_bias=-1.0, delta=0.002, skip=1.0, spread=3.0, head=0.5),
)
