"""A Bernoulli distribution of zeros and ones only."""

from __future__ import annotations

from pyro.distributions import Bernoulli
from torch import Tensor
from torch.nn.functional import logsigmoid


class BinaryBernoulli(Bernoulli):
    """`Bernoulli` whose log_prob takes zeros and ones only.

    For those it is log sigmoid of plus or minus the logits: half the passes over memory of the
    binary cross entropy that also takes values between, and at many dimensions memory is the time.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of the batch shape."""
        signed = (2.0 * value - 1.0) * self.logits
        if not (self.logits.dim() > 1 and self.logits.stride(-2) == 0):
            return logsigmoid(signed)
        # Expanded: rows have the same logits, and all that takes time is the same for a one as for a zero.
        return signed.clamp_max(0.0) - (-self.logits[..., :1, :].abs()).exp().log1p()
