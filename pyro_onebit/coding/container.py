"""The file that `onebit encode` writes: a header, the coder's words, and a checksum over both.

Little-endian: ``onebit``, format, bits of the content a sample, whether dithered, log2 of the bins (a byte each),
points of z1's grid (2), seed (8), the content's length (8), the codec's fingerprint (16), the content's SHA-256 (16),
the words, and the SHA-256 of all before (16). Digests are cut to 16 bytes. The last sample's bits beyond the content
are 0. Format 1 lacks the bits a sample, of which there is one, and all its bins have equal mass.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_onebit.coding.codec import Codec
from pyro_onebit.errors import DamagedError, InputError
from pyro_onebit.programs import DataLike
from pyro_onebit.system import check_memory

MAGIC, _FORMAT = b"onebit", 2
_HEADER = struct.Struct("<6sBBBBHQQ16s16s")
_DIGEST = 16
#: Samples for each bit that words hold: more are neither encoded nor decoded. A run that costs next to nothing could
#: else be made to decode for ever.
_SAMPLES_A_BIT = 2**16
#: Memory that encoding or decoding takes at least, for each byte of a file: a byte for each of its bits, and itself.
BYTES_TO_ENCODE = 9


@dataclass(frozen=True)
class Report:
    """What a file's bits cost; all but the first two in bits a sample, None for an empty file.

    Arguments:
        samples: n-dimensional samples, each of K bits of the file where there are 2^K codewords.
        container_bytes: Size of the container, header and checksum included.
        net: What the chain took.
        per_bit: The same for each bit of the file.
        initial: The bits that the first latents were drawn from, which stay in the stream.
        predicted: The expected rate for this file's shares of the codewords.
        standard_error: Of `net` around `predicted`, latents being drawn at random.
        entropy: The empirical entropy of the samples.
    """

    samples: int
    container_bytes: int
    net: float | None = None
    initial: float | None = None
    predicted: float | None = None
    standard_error: float | None = None
    entropy: float | None = None
    per_bit: float | None = None


def pack(codec: Codec, content: bytes, *, quiet: bool = True) -> tuple[bytes, Report]:
    """The container of a file's content, and what its bits cost.

    Raises:
        InputError: If they cost less than 2^-16 bits a sample, or need more memory than there is.
    """
    check_memory(BYTES_TO_ENCODE * len(content), f"to encode {len(content)} bytes")
    samples = _samples(content, codec.sample_bits)
    words = codec.encode(samples, quiet=quiet)
    if len(samples) > _capacity(words):
        raise InputError(
            f"the run codes {len(samples)} samples in {32 * len(words)} bits; a container has at most {_SAMPLES_A_BIT} "
            "for each bit: take a run that is less sure of them"
        )
    settings = (codec.dither, codec.bins.bit_length() - 1, codec.points, codec.seed)
    own = (codec.fingerprint[:_DIGEST], _digest(content))
    header = _HEADER.pack(MAGIC, _FORMAT, codec.sample_bits, *settings, len(content), *own)
    body = header + words.astype("<u4").tobytes()
    container = body + _digest(body)
    return container, _report(codec, samples, words, len(container))


def unpack(model: Any, guide: Any, data: DataLike, container: bytes, *, quiet: bool = True) -> tuple[bytes, Report]:
    """The content that `pack` put into a container with the same model and guide.

    Raises:
        DamagedError: If it is no container, a damaged one, of another format, or of another model, guide or machine.
    """
    if not container.startswith(MAGIC):
        raise DamagedError("it is not a container that `onebit encode` wrote")
    if len(container) > len(MAGIC) and container[len(MAGIC)] not in (1, _FORMAT):
        raise DamagedError(f"its format is {container[len(MAGIC)]}; this version reads formats 1 and {_FORMAT}")
    body, checksum = container[:-_DIGEST], _digest(container[:-_DIGEST])
    adapted = body[len(MAGIC) : len(MAGIC) + 1] != b"\x01"
    if not adapted:
        body = body[: len(MAGIC) + 1] + b"\x01" + body[len(MAGIC) + 1 :]
    if len(body) < _HEADER.size or checksum != container[-_DIGEST:]:
        raise DamagedError("its checksum does not fit")
    _, _, bits, dither, log_bins, points, seed, length, fingerprint, digest = _HEADER.unpack_from(body)
    payload = body[_HEADER.size :]
    if dither > 1 or len(payload) % 4:
        raise DamagedError("its header makes no sense")
    settings = {"bins": 1 << min(log_bins, 63), "points": points, "dither": bool(dither), "seed": seed}
    codec = Codec(model, guide, data, **settings, adapted=adapted)
    if codec.fingerprint[:_DIGEST] != fingerprint:
        raise DamagedError(
            "it was encoded with another run, or by a machine or version that computes other numbers; "
            "decode it with that run, where it was encoded"
        )
    if codec.sample_bits != bits:
        raise DamagedError(f"it has {bits} bits a sample; this run's samples have {codec.sample_bits}")
    words, count = np.frombuffer(payload, "<u4").astype(np.uint32), -(-8 * length // bits)
    if count > _capacity(words):
        raise DamagedError(f"its length is {length} bytes; its words can hold {bits * _capacity(words) // 8} at most")
    check_memory(BYTES_TO_ENCODE * length, f"to decode {length} bytes")
    samples = codec.decode(words, count, quiet=quiet)
    content = np.packbits(np.unpackbits(samples[:, None], axis=1)[:, -bits:].ravel()[: 8 * length]).tobytes()
    if _digest(content) != digest:
        raise DamagedError("what it decodes to has another checksum")
    return content, _report(codec, samples, words, len(container))


def _samples(content: bytes, bits: int) -> NDArray[np.uint8]:
    """A content as codewords' numbers, each of so many of its bits."""
    each = np.unpackbits(np.frombuffer(content, np.uint8))
    rows = np.pad(each, (0, -len(each) % bits)).reshape(-1, bits)
    return np.packbits(rows, axis=1).ravel() >> np.uint8(8 - bits)


def _capacity(words: Any) -> int:
    """The most samples that the coder's words can hold."""
    return 32 * len(words) * _SAMPLES_A_BIT


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST]


def _report(codec: Codec, samples: Any, words: Any, container_bytes: int) -> Report:
    count = len(samples)
    if not count:
        return Report(0, container_bytes)
    rate = codec.rate
    shares = np.bincount(samples, minlength=len(rate.probs)) / count
    net = (codec.bits(words) - codec.initial_bits) / count
    return Report(
        count,
        container_bytes,
        net=net,
        initial=codec.initial_bits / count,
        predicted=rate.of(shares),
        standard_error=rate.standard_error(count, shares),
        entropy=-sum(p * math.log2(p) for p in shares.tolist() if p > 0.0),
        per_bit=net / codec.sample_bits,
    )
