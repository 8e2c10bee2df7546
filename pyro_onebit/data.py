"""The data: two codewords, how often each occurs, and the entropy that leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import ndtri
from torch import Tensor

from pyro_onebit.errors import InputError

__all__ = ["MAX_NDIMS", "OneBitData", "ideal_threshold"]

#: Above this a decoder's logits alone no longer fit the memory a run is meant for.
MAX_NDIMS = 1_000_000


def ideal_threshold(prob: float) -> float:
    r"""The normal quantile :math:`\Phi^{-1}(1 - p)`: where an ideal top latent is cut in two.

    A standard normal latent lies above it with probability `prob`.
    """
    return -float(ndtri(prob))


@dataclass(frozen=True)
class OneBitData:
    r"""One bit of information, repeated in every dimension.

    Codeword 0 is :math:`(0, \ldots, 0)`, codeword 1 is :math:`(1, \ldots, 1)`, and codeword 1 occurs
    with probability `prob`.

    Arguments:
        ndims: The number of dimensions n, from 1 to ``MAX_NDIMS``.
        prob: The probability of codeword 1, strictly between 0 and 1.
        dtype: What the codewords are handed to programs as.

    Raises:
        InputError: If `ndims` or `prob` is out of range.
    """

    ndims: int
    prob: float = 0.5
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if isinstance(self.ndims, bool) or not isinstance(self.ndims, int) or not 1 <= self.ndims <= MAX_NDIMS:
            raise InputError(f"ndims is {self.ndims!r}; it must be a whole number from 1 to {MAX_NDIMS}")
        if not isinstance(self.prob, (int, float)) or not 0.0 < self.prob < 1.0:
            raise InputError(f"prob is {self.prob!r}; it must lie strictly between 0 and 1")

    @property
    def codewords(self) -> Tensor:
        """The two codewords, shape ``(2, ndims)``."""
        return torch.tensor([[0.0], [1.0]], dtype=self.dtype).expand(2, self.ndims)

    @property
    def probs(self) -> Tensor:
        """The codewords' probabilities, shape ``(2,)``, float64 whatever the codewords are."""
        return torch.tensor([1.0 - self.prob, self.prob], dtype=torch.float64)

    @property
    def entropy(self) -> float:
        r""":math:`H(p) = -p \ln p - (1-p) \ln(1-p)` in nats: what an ideal code spends on a datum."""
        return -self.prob * math.log(self.prob) - (1.0 - self.prob) * math.log1p(-self.prob)

    def rows(self, count: int) -> Tensor:
        """A batch of `count` rows, each codeword in its share (rounded), shape ``(count, ndims)``."""
        ones = round(count * self.prob)
        return self.codewords[[0] * (count - ones) + [1] * ones]
