"""The data: codewords, how often each occurs, and the entropy that leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product

import torch
from scipy.special import ndtri
from torch import Tensor

from pyro_onebit.errors import InputError

__all__ = [
    "MAX_BITS",
    "MAX_NDIMS",
    "BitsData",
    "Codebook",
    "OneBitData",
    "deal",
    "gray_code",
    "ideal_threshold",
    "make_data",
    "word_probs",
    "words_of",
]

#: Above this a decoder's logits alone no longer fit the memory a run is meant for.
MAX_NDIMS = 1_000_000
#: More intervals than these of a scalar latent are too narrow to be learned.
MAX_BITS, _MAX_WORDS = 4, 32


def ideal_threshold(prob: float) -> float:
    r"""The normal quantile :math:`\Phi^{-1}(1 - p)`: where an ideal top latent is cut in two.

    A standard normal latent lies above it with probability `prob`.
    """
    return -float(ndtri(prob))


def words_of(bits: int) -> list[tuple[int, ...]]:
    """The words of so many bits in the order of their numbers, whose binary digits they are."""
    return list(product((0, 1), repeat=bits))


def word_probs(bit_probs: Sequence[float]) -> tuple[float, ...]:
    """The probability of each word of `words_of` whose bits are independent, bit j being 1 with ``bit_probs[j]``."""
    return tuple(math.prod(ways) for ways in product(*((1.0 - p, p) for p in bit_probs)))


def gray_code(repeats: Sequence[int]) -> tuple[int, ...]:
    """The words' numbers in an order in which neighbours differ in one bit: the reflected Gray code.

    Arguments:
        repeats: What each bit weighs; the heavier it is, the fewer pairs of neighbours differ in it.
    """
    bits = len(repeats)
    heaviest = sorted(range(bits), key=lambda j: -repeats[j])
    digits = [[(i ^ i >> 1) >> (bits - 1 - place) & 1 for place in range(bits)] for i in range(2**bits)]
    return tuple(sum(own[place] << (bits - 1 - j) for place, j in enumerate(heaviest)) for own in digits)


def deal(ndims: int, bits: int) -> tuple[int, ...]:
    """So many dimensions, dealt to the bits as evenly as possible; the first ones get the rest."""
    return tuple(ndims // bits + (j < ndims % bits) for j in range(bits))


class _Words:
    """Distinct rows of zeros and ones, and how often each occurs."""

    @property
    def codewords(self) -> Tensor:
        """The codewords, shape ``(M, ndims)``."""
        raise NotImplementedError

    @property
    def probs(self) -> Tensor:
        """The codewords' probabilities, shape ``(M,)``, float64 whatever the codewords are."""
        raise NotImplementedError

    @property
    def ndims(self) -> int:
        """The number of dimensions n."""
        return self.codewords.shape[-1]

    @property
    def entropy(self) -> float:
        """What an ideal code spends on a datum, nats."""
        return -float(self.probs @ self.probs.log())

    def rows(self, count: int) -> Tensor:
        """A batch of `count` rows, each codeword in its share (rounded), shape ``(count, ndims)``."""
        # So many lie at each codeword or beyond.
        beyond = [round(count * float(share)) for share in self.probs.flip(0).cumsum(0).flip(0)]
        each = torch.tensor([*beyond, 0]).diff().neg()
        return self.codewords[torch.arange(len(each)).repeat_interleave(each)]


@dataclass(frozen=True, init=False)
class Codebook(_Words):
    """Any distinct words of zeros and ones.

    Arguments:
        words: The words, 2 to 32 of them, of one length.
        probs: Their probabilities; None: all alike.
        dtype: What the codewords are handed to programs as.

    Raises:
        InputError: If they are not.
    """

    words: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]
    dtype: torch.dtype

    def __init__(
        self, words: Sequence[Sequence[int]], probs: Sequence[float] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        own = tuple(tuple(map(int, word)) for word in words)
        if not 2 <= len(set(own)) == len(own) <= _MAX_WORDS or len({*map(len, own)}) > 1 or {*chain(*own)} != {0, 1}:
            raise InputError(
                f"words are {repr(words)[:60]}; they must be 2 to {_MAX_WORDS} distinct rows of zeros and ones"
            )
        shares = (1.0 / len(own),) * len(own) if probs is None else tuple(map(float, probs))
        if len(shares) != len(own) or not min(shares) > 0.0 or abs(sum(shares) - 1.0) > 1e-6:
            raise InputError(f"probs is {repr(probs)[:60]}; it must have a positive number a word, which sum to 1")
        _set(self, words=own, shares=shares, dtype=dtype)

    @property
    def codewords(self) -> Tensor:
        """The codewords, shape ``(M, ndims)``."""
        return torch.tensor(self.words, dtype=self.dtype)

    @property
    def probs(self) -> Tensor:
        """The codewords' probabilities, shape ``(M,)``, float64 whatever the codewords are."""
        return torch.tensor(self.shares, dtype=torch.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """What each codeword is called: its digits where they are few, otherwise its number."""
        return tuple("".join(map(str, word)) if len(word) <= 8 else str(i) for i, word in enumerate(self.words))


@dataclass(frozen=True, init=False)
class BitsData(_Words):
    r"""K independent bits, bit j repeated in ``repeats[j]`` dimensions.

    Codeword c consists of the K binary digits of c, from the first bit on, each repeated. K = 1 is `OneBitData`.

    Arguments:
        repeats: In how many dimensions each bit is repeated, 1 to ``MAX_BITS`` numbers.
        probs: The probability that a bit is 1, strictly between 0 and 1: one number for all bits, or one for each.
        dtype: What the codewords are handed to programs as.

    Raises:
        InputError: If `repeats` or `probs` is out of range.
    """

    repeats: tuple[int, ...]
    bit_probs: tuple[float, ...]
    dtype: torch.dtype

    def __init__(
        self, repeats: Sequence[int], probs: float | Sequence[float] = 0.5, dtype: torch.dtype = torch.float32
    ) -> None:
        if not 1 <= len(repeats) <= MAX_BITS or not all(map(_is_whole, repeats)) or sum(repeats) > MAX_NDIMS:
            raise InputError(
                f"repeats is {' '.join(map(str, repeats))[:60]}; it must be 1 to {MAX_BITS} whole numbers from 1 on, "
                f"of at most {MAX_NDIMS} together"
            )
        each = probs if isinstance(probs, Sequence) else (probs,) * len(repeats)
        if len(each) != len(repeats):
            raise InputError(f"probs has {len(each)} numbers; it must have one, or one for each of {len(repeats)} bits")
        _set(self, repeats=tuple(repeats), bit_probs=tuple(map(_checked_prob, each)), dtype=dtype)

    @property
    def bits(self) -> int:
        """The number of bits, K."""
        return len(self.repeats)

    @property
    def ndims(self) -> int:
        """The number of dimensions n."""
        return sum(self.repeats)

    @property
    def prob(self) -> float:
        """The probability that a bit is 1, where it is the same for all.

        Raises:
            InputError: If it is not.
        """
        if len(set(self.bit_probs)) > 1:
            raise InputError(f"the bits' probabilities are {self.bit_probs}; take one for all")
        return self.bit_probs[0]

    @property
    def codewords(self) -> Tensor:
        """The codewords, shape ``(2^K, ndims)``."""
        parts = torch.tensor(words_of(self.bits), dtype=self.dtype).split(1, -1)
        return torch.cat([part.expand(-1, many) for part, many in zip(parts, self.repeats, strict=True)], -1)

    @property
    def probs(self) -> Tensor:
        """The codewords' probabilities, shape ``(2^K,)``, float64 whatever the codewords are."""
        return torch.tensor(word_probs(self.bit_probs), dtype=torch.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """What each codeword is called: its bits."""
        return tuple("".join(map(str, word)) for word in words_of(self.bits))

    @property
    def separate_entropy(self) -> float:
        """What a datum costs whose dimensions are coded each by itself, nats: the loss if no latent is used."""
        return sum(many * _entropy(p) for many, p in zip(self.repeats, self.bit_probs, strict=True))

    @property
    def entropy(self) -> float:
        r""":math:`\sum_j -p_j \ln p_j - (1-p_j) \ln(1-p_j)` in nats: what an ideal code spends on a datum."""
        return sum(map(_entropy, self.bit_probs))


class OneBitData(BitsData):
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

    def __init__(self, ndims: int, prob: float = 0.5, dtype: torch.dtype = torch.float32) -> None:
        if not _is_whole(ndims) or ndims > MAX_NDIMS:
            raise InputError(f"ndims is {ndims!r}; it must be a whole number from 1 to {MAX_NDIMS}")
        super().__init__((ndims,), prob, dtype)

    def __repr__(self) -> str:
        return f"OneBitData(ndims={self.ndims}, prob={self.prob}, dtype={self.dtype})"


def make_data(repeats: Sequence[int], prob: float, dtype: torch.dtype = torch.float32) -> BitsData:
    """Bits of one probability, as `BitsData` has them; one bit alone as `OneBitData`."""
    return OneBitData(repeats[0], prob, dtype) if len(repeats) == 1 else BitsData(repeats, prob, dtype)


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1.0 - p) * math.log1p(-p)


def _set(data: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(data, name, value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _checked_prob(prob: object) -> float:
    if not isinstance(prob, (int, float)) or not 0.0 < prob < 1.0:
        raise InputError(f"prob is {prob!r}; it must lie strictly between 0 and 1")
    return prob
