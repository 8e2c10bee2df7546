"""The container: whole files there and back, and nothing else."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_onebit.coding import Codec, pack, unpack
from pyro_onebit.coding.container import _HEADER
from pyro_onebit.errors import DamagedError, InputError


@pytest.fixture(scope="module")
def run(trained):
    return trained(1, 5)


@pytest.fixture(scope="module")
def codec(run) -> Codec:
    return Codec(run.model, run.guide, run.data)


def restore(run, container: bytes) -> bytes:
    return unpack(run.model, run.guide, run.data, container)[0]


def signed(body: bytes) -> bytes:
    """With a checksum that fits, as who wants to do harm would write it."""
    return body + hashlib.sha256(body).digest()[:16]


@given(content=st.binary(max_size=100))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_come_back(run, codec: Codec, content: bytes) -> None:
    container, report = pack(codec, content)
    restored, again = unpack(run.model, run.guide, run.data, container)
    assert restored == content
    assert report == again
    assert report.samples == 8 * len(content)


def test_settings_travel_with_the_container(run) -> None:
    content = b"settings"
    codec = Codec(run.model, run.guide, run.data, bins=256, dither=False, seed=7)
    container, _ = pack(codec, content)
    assert restore(run, container) == content


def test_the_report_adds_up(codec: Codec) -> None:
    content = bytes([0b1000_0000]) * 250
    container, report = pack(codec, content)
    p = 1 / 8
    assert report.entropy == pytest.approx(-p * math.log2(p) - (1 - p) * math.log2(1 - p))
    assert report.predicted == pytest.approx(codec.rate.expected @ [1 - p, p])
    assert (report.net + report.initial) * report.samples <= 8 * (report.container_bytes - 75)
    assert (report.net + report.initial) * report.samples > 8 * (report.container_bytes - 75) - 33
    assert len(container) == report.container_bytes
    empty = pack(codec, b"")[1]
    assert (empty.samples, empty.net, empty.entropy) == (0, None, None)


def test_no_random_damage_gets_through(run, codec: Codec) -> None:
    content = bytes(range(200))
    container, _ = pack(codec, content)
    random = np.random.default_rng(0)
    for i in range(10_000):
        damaged = bytearray(container)
        at, to = sorted(int(k) for k in random.integers(0, len(container) + 1, 2))
        match i % 5:
            case 0:
                damaged[min(at, len(damaged) - 1)] ^= 1 << int(random.integers(8))
            case 1:
                del damaged[at:]
            case 2:
                del damaged[at:to]
            case 3:
                damaged[at:at] = random.bytes(to - at)
            case 4:
                damaged[at:to] = random.bytes(to - at)
        try:
            assert restore(run, bytes(damaged)) == content
        except DamagedError:
            continue
        assert damaged == container


def test_signed_damage_does_not_get_through_either(run, codec: Codec) -> None:
    content = bytes(range(100))
    body = pack(codec, content)[0][:-16]
    random = np.random.default_rng(1)
    for _ in range(15):
        damaged = bytearray(body)
        for at in random.integers(0, len(body), random.integers(1, 4)):
            damaged[at] = int(random.integers(256))
        if damaged != body:
            with pytest.raises(InputError):
                restore(run, signed(bytes(damaged)))


@pytest.mark.parametrize("field", [5, 6])
def test_a_length_or_a_digest_of_another_file_is_refused(run, codec: Codec, field: int) -> None:
    container, _ = pack(codec, b"some content")
    header = list(_HEADER.unpack_from(container))
    header[6 if field == 5 else 8] = 2**63 if field == 5 else bytes(16)
    body = _HEADER.pack(*header) + container[_HEADER.size : -16]
    with pytest.raises(DamagedError):
        restore(run, signed(body))


def test_a_length_that_nothing_pays_for_is_refused(run, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a run's samples cost nothing at all, so that words would never come to their end."""
    container, _ = pack(codec, b"some content")
    header = list(_HEADER.unpack_from(container))
    words = (len(container) - _HEADER.size - 16) // 4
    header[6] = 32 * words * 2**16 // 8 + 1
    body = _HEADER.pack(*header) + container[_HEADER.size : -16]
    with pytest.raises(DamagedError, match=f"its words can hold {header[6] - 1} at most"):
        restore(run, signed(body))
    monkeypatch.setattr(codec, "encode", lambda samples, quiet: np.ones(1, np.uint32))
    with pytest.raises(InputError, match="take a run that is less sure"):
        pack(codec, bytes(2**18 + 1))


def test_foreign_files_and_runs_are_named(trained, run, codec: Codec) -> None:
    container, _ = pack(codec, b"content")
    for foreign, message in (
        (b"", "not a container"),
        (b"PK\x03\x04", "not a container"),
        (b"onebit", "checksum"),
        (b"onebit\x09" + bytes(100), "format is 9"),
        (container[:-1], "checksum"),
    ):
        with pytest.raises(DamagedError, match=message):
            restore(run, foreign)
    with pytest.raises(DamagedError, match="another run"):
        restore(trained(1, 6), container)
    other = replace(run.data, prob=0.4)
    assert unpack(run.model, run.guide, other, container)[0] == b"content"
