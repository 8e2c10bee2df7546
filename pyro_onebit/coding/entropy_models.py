"""What the codec codes: distributions in whole multiples of 2^-24, each pushed onto the coder or popped from it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from pyro_onebit.errors import DamagedError
from pyro_onebit.programs import Pair
from pyro_onebit.reproducibility import one_thread

_MODELS = constriction.stream.model
#: The coder's probabilities are whole multiples of 2^-24.
PRECISION = 24
_TOTAL = 1 << PRECISION
#: Points whose likelihoods are computed together, and the largest table of them that is kept.
_ROWS = 16
_KEPT_BYTES = 2**28


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """A decoder must see the encoder's very digits."""
    with one_thread(), torch.no_grad():
        yield


class Table:
    """Distributions over 0 .. size-1, one for each condition, in whole multiples of 2^-24.

    Arguments:
        log_weights: Unnormalised, shape ``(conditions, size)``.
        popped: Whether symbols are drawn from it. Then each of 2^24 quantiles is a symbol, and one that has none is
            never drawn: drawn with 2^-24, what should be far rarer and costs thousands of bits would be felt.
            Otherwise none is left out, since any may have to be coded.
    """

    def __init__(self, log_weights: NDArray[np.float64], *, popped: bool) -> None:
        self.log2 = log_softmax(log_weights, -1) / math.log(2.0)
        cumulative = np.cumsum(np.exp2(self.log2), -1)
        cumulative /= cumulative[:, -1:]
        size = 0 if popped else log_weights.shape[-1]
        upper = np.round(cumulative * (_TOTAL - size))
        self.masses = (np.diff(upper, prepend=0.0, axis=-1) + (size > 0)).astype(np.uint32)
        self._cache: dict[int, tuple[list[int], Any]] = {}

    @property
    def log2_masses(self) -> NDArray[np.float64]:
        """log2 of the probabilities as coded."""
        with np.errstate(divide="ignore"):
            return np.log2(self.masses) - float(PRECISION)

    def _row(self, condition: int) -> tuple[list[int], Any]:
        row = self._cache.get(condition)
        if row is None:
            [support] = self.masses[condition].nonzero()
            # From one less each the coder makes exactly these masses.
            weights = self.masses[condition, support].astype(np.float64) - 1.0
            coded = _MODELS.Categorical(weights, perfect=False) if len(support) > 1 else None
            row = self._cache[condition] = (support.tolist(), coded)
        return row

    def push(self, coder: Any, symbol: int, condition: int) -> None:
        """Code a symbol; `DamagedError` if it is one that is never drawn."""
        support, coded = self._row(condition)
        at = bisect_left(support, symbol)
        if at == len(support) or support[at] != symbol:
            raise DamagedError("a latent is decoded that is never drawn")
        if coded is not None:
            coder.encode_reverse(at, coded)

    def pop(self, coder: Any, condition: int) -> int:
        """Decode, or draw, a symbol."""
        support, coded = self._row(condition)
        return support[0 if coded is None else coder.decode(coded)]


class Pixels:
    """p(x|z) at grid points: each dimension a Bernoulli of its own, in whole multiples of 2^-24."""

    def __init__(self, pair: Pair, points: torch.Tensor) -> None:
        self.pair, self.points = pair, points
        ndims = pair.x.shape[-1]
        self.words = [word.numpy().astype(np.int32) for word in pair.x]
        self._numbers = {word.tobytes(): number for number, word in enumerate(self.words)}
        self._family = _MODELS.Categorical(perfect=False)
        kept = max(1, _KEPT_BYTES // (8 * _ROWS * ndims))
        self._rows = lru_cache(kept)(self._compute_rows)

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """The coder's weights for each dimension's two values, ``(points, ndims, 2)``, some points at a time."""
        for block in range(math.ceil(len(self.points) / _ROWS)):
            yield self._rows(block)

    # Always the same points together: a result's last digit may hang on what it is computed with.
    @exact_arithmetic()
    def _compute_rows(self, block: int) -> NDArray[np.float32]:
        ones = self.pair.mean_x(self._values(self.points[block * _ROWS : (block + 1) * _ROWS])).numpy()
        masses = np.clip(np.round(ones * _TOTAL), 1, _TOTAL - 1)
        # Whole numbers up to 2^24 are exact in single precision. One less each, as in a table.
        return np.stack([_TOTAL - masses - 1, masses - 1], -1).astype(np.float32)

    def push(self, coder: Any, codeword: int, at: int) -> None:
        """Code every dimension of a codeword, given the number of z's point."""
        coder.encode_reverse(self.words[codeword], self._family, self._rows(at // _ROWS)[at % _ROWS])

    def pop(self, coder: Any, at: int) -> int:
        """Decode every dimension of a codeword; `DamagedError` if the row is none."""
        word = coder.decode(self._family, self._rows(at // _ROWS)[at % _ROWS])
        number = self._numbers.get(word.tobytes())
        if number is None:
            raise DamagedError("a row is decoded that is no codeword")
        return number

    def _values(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """The points as values of the lowest latent; another one makes no difference to x."""
        return dict.fromkeys(self.pair.latents, points[:, None])

    @cached_property
    @exact_arithmetic()
    def log2(self) -> NDArray[np.float64]:
        """log2 p(x|z) of each codeword at each point, ``(M, points)``."""
        bits: NDArray[np.float64] = self.pair.likelihood(self._values(self.points)).numpy().T / math.log(2.0)
        return bits

    @cached_property
    def log2_masses(self) -> NDArray[np.float64]:
        """The same as coded."""
        ones, columns = np.stack(self.words).astype(np.float64), []
        for rows in self.rows():
            bits = np.log2(rows.astype(np.float64) + 1.0) - PRECISION
            columns.append((1.0 - ones) @ bits[..., 0].T + ones @ bits[..., 1].T)
        return np.concatenate(columns, -1)
