"""p(z1|z2) and q(z2|z1)."""

from __future__ import annotations

import torch
from pyro.distributions import Independent
from torch import Tensor

from pyro_onebit.data import ideal_threshold
from pyro_onebit.nn.architecture import Architecture, Start
from pyro_onebit.nn.network import Network, normal, spread_bends, variance_of


class GaussianNet(Network):
    """A Gaussian with mean and variance from a network: c ``(..., input_dim)`` to event ``(1,)``.

    Arguments:
        input_dim: Dimensions of c.
        width: Width of the hidden layers.
        arch: Depth and start.
        prob: Probability of codeword 1.
        context_dim: Dimensions of the rows x ``(..., ndims)`` that it is given, too; 0: none.
    """

    variance_bias: Tensor

    def __init__(self, input_dim: int, width: int, arch: Architecture, prob: float, context_dim: int = 0) -> None:
        super().__init__(input_dim, width, [1, 1], arch, prob, context_dim)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().reset_parameters(start, prob)
        self._set(variance_bias=start.variance_bias)

    def forward(self, c: Tensor, x: Tensor | None = None) -> Independent:
        """The conditional given c, and rows x."""
        mean, raw = self._outputs(c, x)
        return normal(mean, self._variance(raw).sqrt())

    def _variance(self, raw: Tensor) -> Tensor:
        return variance_of(raw + self.variance_bias)


class StretchNet(GaussianNet):
    r"""p(z1|z2) and q(z2|z1) in the coordinate in which both are nearly the identity.

    An ideal z2 puts the codewords on either side of a threshold t, and the wide gap between the
    modes of z1 onto a sliver around it. In :math:`a = \operatorname{asinh}((z_2 - t)/\delta)` the
    standard normal is bimodal like q(z1), and the map between the two is smooth.

    `down`: :math:`z_1 \mid z_2 \sim N(s\,a/2 + m(a/2),\, v(a/2))`, s the skip's slope.
    Otherwise :math:`z_2 \mid z_1 \sim N(t + \delta \sinh\alpha,\, (\delta \cosh(\alpha)\,\beta)^2)`
    with :math:`\alpha = 2 s z_1 + m(z_1)` and :math:`\beta = \operatorname{softplus}(\cdot)`.

    Arguments:
        arch: Sizes and start.
        prob: Probability of codeword 1, which lies above the threshold.
        down: Whether from z2 to z1.
        context_dim: Dimensions of the rows x ``(..., ndims)`` that it is given, too; 0: none.
    """

    delta: Tensor
    gain: Tensor
    threshold: Tensor

    def __init__(self, arch: Architecture, prob: float, *, down: bool, context_dim: int = 0) -> None:
        self.down = down
        super().__init__(1, arch.width_z, arch, prob, context_dim)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Draw initial weights anew and set the skips."""
        super().reset_parameters(start, prob)
        self._set(delta=start.delta, gain=2.0 * start.skip, threshold=ideal_threshold(prob))
        if start.spread is not None:
            spread_bends(self.net, start.spread, start.head)

    def forward(self, c: Tensor, x: Tensor | None = None) -> Independent:
        """The conditional of one of z1 and z2 given the other, c of shape ``(..., 1)``, and rows x."""
        if self.down:
            a = 0.5 * torch.asinh((c - self.threshold) / self.delta)
            mean, raw = self._outputs(a, x)
            return normal(0.5 * self.gain * a + mean, self._variance(raw).sqrt())
        mean, raw = self._outputs(c, x)
        alpha = self.gain * c + mean
        return normal(
            self.threshold + self.delta * torch.sinh(alpha), self.delta * torch.cosh(alpha) * self._variance(raw)
        )


def between_latents(arch: Architecture, prob: float, *, down: bool, context_dim: int = 0) -> GaussianNet:
    """p(z1|z2) if `down`, otherwise q(z2|z1), in the architecture's coordinate; arguments as for `StretchNet`."""
    if arch.stretch:
        return StretchNet(arch, prob, down=down, context_dim=context_dim)
    return GaussianNet(1, arch.width_z, arch, prob, context_dim)
