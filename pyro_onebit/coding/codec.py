r"""Bits back: a lossless codec of codewords, whose rate is the loss.

To code x, a latent is *drawn* by decoding it from the bits written so far, under q(z|x); then x is coded under
p(x|z), and z under p(z). The decoder gets z back and from it the bits it was drawn with: on average they make
up for what z cost beyond KL(q ‖ p). In which order the latents are drawn, `schemes` has.

Latents live on grids: the top one on the middles of bins, of equal mass under its prior or, where it is drawn after z1,
half of them as narrow as q(z2|z1) is; z1 below it on evenly spaced points. On both sides densities are taken *at* those
points, so that an exact posterior stays one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_onebit.coding.entropy_models import exact_arithmetic
from pyro_onebit.coding.schemes import DITHERED, make_scheme
from pyro_onebit.errors import DamagedError, InputError
from pyro_onebit.exact import solve
from pyro_onebit.programs import DataLike, Pair
from pyro_onebit.reproducibility import check_seed
from pyro_onebit.system import progress

_Coder = constriction.stream.stack.AnsCoder
#: Random words that the first latents are drawn from; they come back in the end.
_INITIAL_WORDS = 4
#: Between samples no fewer bits than these are left of them, or the chain has gone wrong.
_RESERVE = 64
#: Samples to a block of dither.
_BLOCK = 4096
#: Bins times points: a table of them, in float64, is 128 MiB, and several are made.
_LARGEST = 2**24


@dataclass(frozen=True)
class Rate:
    """Expected bits a sample of the chain, by summation over all latents.

    Arguments:
        expected: Of each codeword, shape ``(M,)``; latents drawn from q, as dither makes them.
        sd: Standard deviation of a sample's bits, of each codeword, shape ``(M,)``.
        probs: The model's probabilities of the codewords.
        neg_elbo: -ELBO/ln 2 on continuous latents, by quadrature.
        discretisation: What the grids add to it.
        leak: What whole multiples of 2^-24 add to that.
    """

    expected: NDArray[np.float64]
    sd: NDArray[np.float64]
    probs: NDArray[np.float64]
    neg_elbo: float
    discretisation: float
    leak: float

    @property
    def mean(self) -> float:
        """Expected bits a sample where codewords occur as the model thinks."""
        return float(self.expected @ self.probs)

    def of(self, shares: ArrayLike) -> float:
        """Expected bits a sample where codewords have other shares of the samples, ``(M,)``."""
        return float(self.expected @ np.asarray(shares))

    def standard_error(self, count: int, shares: ArrayLike) -> float:
        """Standard error of the mean over `count` samples, of which codewords have these shares, ``(M,)``."""
        return math.sqrt(float(self.sd**2 @ np.asarray(shares)) / max(1, count))


class Codec:
    """A bits-back codec of codewords, from a model and a guide of one layer or two.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        bins: Bins of the top latent, a power of two from 2^4 to 2^16.
        points: Points of z1's grid in a two-layer model; if not given 1024 for each bit of a sample: the more
            codewords, the narrower are the steps of p(z1|z2) between them.
        dither: Whether latents are drawn from q. Bits that an earlier sample has left are not random: drawn from
            them as they are, successive latents hang on each other and are not q's. To shift them by a
            pseudo-random number that the decoder knows, too, costs nothing.
        seed: Random seed for the dither and for the initial bits.
        adapted: Whether bins of the top latent follow q(z2|z1), as they do but in containers of format 1.

    Raises:
        InputError: If a setting is out of range, or the programs are none that it can code with.
        ArithmeticError: If the model's figures are not finite.
    """

    def __init__(
        self,
        model: Any,
        guide: Any,
        data: DataLike,
        *,
        bins: int = 4096,
        points: int | None = None,
        dither: bool = True,
        seed: int = 0,
        adapted: bool = True,
    ) -> None:
        if bins not in [2**b for b in range(4, 17)]:
            raise InputError(f"bins is {bins}; it must be a power of two from 16 to 65536")
        if points is None:
            points = min(1024 * max(1, (len(data.codewords) - 1).bit_length()), 4096, _LARGEST // bins)
        if not 16 <= points <= 4096:
            raise InputError(f"points is {points}; it must be from 16 to 4096")
        check_seed(seed)
        pair = Pair(model, guide, data)
        if len(pair.latents) == 2 and pair.x_needs_top:
            raise InputError(
                "the codec takes models whose x depends on {} alone, not on {} as well".format(*pair.latents)
            )
        if len(pair.latents) == 2 and bins * points > _LARGEST:
            raise InputError(f"bins times points is {bins * points}; it must be at most {_LARGEST}")
        self.bins, self.points, self.dither, self.seed = bins, points, dither, seed
        with exact_arithmetic():
            self._truth = solve(model, guide, data)
            self._scheme = make_scheme(pair, self._truth, bins, points, adapted=adapted)

    def encode(self, samples: NDArray[np.uint8], *, quiet: bool = True) -> NDArray[np.uint32]:
        """Code samples, given as codewords' numbers, shape ``(samples,)``; the coder's words.

        Arguments:
            samples: From 0 to M - 1 each.
            quiet: Show no progress bar.
        """
        coder = _Coder(self._initial_words(), seal=True)
        with progress(quiet=quiet, total=len(samples), unit="sample", unit_scale=True) as bar:
            for block in range(math.ceil(len(samples) / _BLOCK)):
                part = samples[block * _BLOCK : (block + 1) * _BLOCK].tolist()
                for sample, noise in zip(part, self._noise(block), strict=False):
                    self._scheme.push(coder, sample, noise)
                self._check_reserve(coder)
                bar.update(len(part))
        words: NDArray[np.uint32] = coder.get_compressed()
        return words

    def decode(self, words: NDArray[np.uint32], count: int, *, quiet: bool = True) -> NDArray[np.uint8]:
        """The `count` samples that `encode` made these words of.

        Raises:
            DamagedError: If this codec did not make them of so many samples.
        """
        try:
            coder = _Coder(words)
        except ValueError:
            raise DamagedError("the coder's words end in a zero") from None
        parts = []
        with progress(quiet=quiet, total=count, unit="sample", unit_scale=True) as bar:
            for block in reversed(range(math.ceil(count / _BLOCK))):
                self._check_reserve(coder)
                size = min(_BLOCK, count - block * _BLOCK)
                noise = self._noise(block)[:size]
                parts.append(np.array([self._scheme.pop(coder, own) for own in reversed(noise)], np.uint8))
                bar.update(size)
        try:
            left = coder.get_compressed(unseal=True)
        except (AssertionError, ValueError):
            left = words[:0]
        if not np.array_equal(left, self._initial_words()):
            raise DamagedError("the bits it began with do not come back")
        return np.concatenate(parts)[::-1] if parts else np.empty(0, np.uint8)

    @property
    def sample_bits(self) -> int:
        """How many bits a sample can stand for: K, where there are 2^K codewords."""
        return int(math.log2(len(self._truth.probs)))

    @property
    def initial_bits(self) -> int:
        """Bits that the first latents are drawn from; they stay in the stream."""
        return 32 * _INITIAL_WORDS

    @staticmethod
    def bits(words: NDArray[np.uint32]) -> int:
        """Bits that the coder's words hold, `initial_bits` among them."""
        return int(_Coder(words).num_valid_bits()) - 1  # but for the seal

    @cached_property
    def rate(self) -> Rate:
        """Expected bits a sample, and what they are made of."""
        real, _ = self._scheme.moments(coded=False)
        mean, square = self._scheme.moments(coded=True)
        probs = self._truth.probs.numpy()
        neg_elbo = self._truth.figures()["loss"] / math.log(2.0)
        sd = np.sqrt(np.maximum(square - mean**2, 0.0))
        return Rate(mean, sd, probs, neg_elbo, float(probs @ real) - neg_elbo, float(probs @ (mean - real)))

    @cached_property
    def fingerprint(self) -> bytes:
        """Of every number that coding uses, as whole numbers, and of the coder itself; 32 bytes."""
        pixels = self._scheme.pixels
        digest = hashlib.sha256(f"{len(pixels.words[0])} {self.bins} {self.dither} {self.seed}".encode())
        for table in self._scheme.tables:
            digest.update(table.masses.astype("<u4").tobytes())
        for rows in pixels.rows():
            digest.update(rows.astype("<f4").tobytes())
        probe = self.encode((np.arange(8) % len(self._truth.probs)).astype(np.uint8))
        digest.update(probe.astype("<u4").tobytes())
        return digest.digest()

    def _initial_words(self) -> NDArray[np.uint32]:
        raw = np.random.Philox(key=self.seed, counter=1 << 255).random_raw(_INITIAL_WORDS)
        return (raw >> 32).astype(np.uint32)

    def _noise(self, block: int) -> list[list[int]]:
        """For each of a block's samples a shift for each latent; none without dither."""
        if not self.dither:
            return [[]] * _BLOCK
        raw = np.random.Philox(key=self.seed, counter=block << 128).random_raw(_BLOCK * len(self._truth.latents))
        shifts: list[list[int]] = (raw >> (64 - DITHERED)).reshape(_BLOCK, -1).tolist()
        return shifts

    def _check_reserve(self, coder: Any) -> None:
        if coder.num_valid_bits() < _RESERVE:
            raise DamagedError("the bits end before the samples do")
