"""p(x|z1)."""

from __future__ import annotations

import torch
from pyro.distributions import Independent
from torch import Tensor

from pyro_onebit.data import words_of
from pyro_onebit.distributions import BinaryBernoulli
from pyro_onebit.nn.architecture import Architecture, Start
from pyro_onebit.nn.network import Network


class BernoulliNet(Network):
    """p(x|z1): independent Bernoulli dimensions given z1 ``(..., 1)``, event ``(ndims,)``.

    The skips are each codeword's log-odds over the first one, quadratic in z1; from them come the log-odds of each bit.
    """

    centre: Tensor
    offset: Tensor
    slope: Tensor
    bend: Tensor
    #: 0 for the codewords whose bit is 1, and for those whose bit is 0, and minus infinity for the others, ``(K, M)``.
    one: Tensor
    zero: Tensor

    def __init__(self, ndims: int, arch: Architecture, prob: float) -> None:
        super().__init__(1, arch.width_x, [ndims], arch, prob)
        one = torch.tensor(words_of(len(self.repeats)), dtype=torch.bool).T
        self._keep(one=torch.zeros(one.shape).masked_fill(~one, -torch.inf))
        self._keep(zero=torch.zeros(one.shape).masked_fill(one, -torch.inf))

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips."""
        super().reset_parameters(start, prob)
        odds = zip(*start.odds(prob, self.repeats), strict=True)
        self._set(**dict(zip(("centre", "offset", "slope", "bend"), odds, strict=True)))

    def forward(self, c: Tensor) -> Independent:
        """The conditional given z1."""
        d = c - self.centre
        return BinaryBernoulli(
            logits=self._logits(self.net(c), self.offset, (self.slope + self.bend * d) * d)
        ).to_event(1)

    def _logits(self, net: Tensor, offset: Tensor, rest: Tensor) -> Tensor:
        if len(self.repeats) == 1:  # codeword 1's log-odds are its bit's
            return net + offset + rest
        odds = (offset + rest)[..., None, :]
        odds = torch.cat([torch.zeros_like(odds[..., :1]), odds], -1)
        skips = torch.logsumexp(odds + self.one, -1) - torch.logsumexp(odds + self.zero, -1)
        bits = zip(skips.split(1, -1), self.repeats, strict=True)
        return net + torch.cat([bit.expand(*bit.shape[:-1], many) for bit, many in bits], -1)
