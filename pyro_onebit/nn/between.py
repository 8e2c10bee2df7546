"""p(z1|z2) and q(z2|z1)."""

from __future__ import annotations

from pyro.distributions import Independent
from torch import Tensor

from pyro_onebit.data import word_probs
from pyro_onebit.nn.architecture import Architecture, Start
from pyro_onebit.nn.network import Network, normal, spread_bends, variance_of
from pyro_onebit.nn.transport import Transport


class GaussianNet(Network):
    """A Gaussian with mean and variance from a network: c ``(..., input_dim)`` to event ``(1,)``.

    Arguments:
        input_dim: Dimensions of c.
        width: Width of the hidden layers.
        arch: Depth and start.
        prob: Probability that a bit of x is 1.
        context_dim: Dimensions of the rows x ``(..., ndims)`` that it is given, too; 0: none.
    """

    def __init__(self, input_dim: int, width: int, arch: Architecture, prob: float, context_dim: int = 0) -> None:
        super().__init__(input_dim, width, [1, 1], arch, prob, context_dim)

    def forward(self, c: Tensor, x: Tensor | None = None) -> Independent:
        """The conditional given c, and rows x."""
        mean, raw = self._outputs(c, x)
        return normal(mean, variance_of(raw).sqrt())


class TransportNet(Network):
    r"""p(z1|z2) and q(z2|z1) around the map h that carries the starting q(z1) to the prior of z2 (`Transport`).

    `down`: :math:`z_1 \mid z_2 \sim N(u(z_2) + s\,m(u(z_2)),\, (s\,\beta(u(z_2)))^2)`, u the inverse of h, s the mean
    of the starting standard deviations of q(z1|x).
    Otherwise :math:`z_2 \mid z_1 \sim N(h(z),\, (h'(z)\,s\,\beta(z_1))^2)` with :math:`z = z_1 + s\,m(z_1)`.

    With m = 0 and one :math:`\beta` for both, the joint KL is of the order of :math:`\beta^2`.

    Arguments:
        arch: Sizes and start.
        prob: Probability that a bit of x is 1.
        down: Whether from z2 to z1.
        context_dim: Dimensions of the rows x ``(..., ndims)`` that it is given, too; 0: none.
    """

    unit: Tensor
    beta: Tensor

    def __init__(self, arch: Architecture, prob: float, *, down: bool, context_dim: int = 0) -> None:
        self.down = down
        super().__init__(1, arch.width_z, [1, 1], arch, prob, context_dim)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        spread_bends(self.net)
        scales = start.scales(prob, self.repeats)
        self._set(unit=sum(scales) / len(scales), beta=start.beta)
        self.transport = Transport(start.means(prob, self.repeats), scales, word_probs([prob] * len(self.repeats)))

    def forward(self, c: Tensor, x: Tensor | None = None) -> Independent:
        """The conditional of one of z1 and z2 given the other, c of shape ``(..., 1)``, and rows x."""
        if self.down:
            u = self.transport.inverse(c)
            shift, raw = self._outputs(u, x)
            return normal(u + self.unit * shift, self.unit * self.beta * raw.exp())
        shift, raw = self._outputs(c, x)
        h, log_slope = self.transport(c + self.unit * shift)
        return normal(h, self.unit * self.beta * (log_slope + raw).exp())


def between_latents(arch: Architecture, prob: float, *, down: bool, context_dim: int = 0) -> Network:
    """p(z1|z2) if `down`, otherwise q(z2|z1), as the architecture has it; arguments as for `TransportNet`."""
    if arch.transport:
        return TransportNet(arch, prob, down=down, context_dim=context_dim)
    return GaussianNet(1, arch.width_z, arch, prob, context_dim)
