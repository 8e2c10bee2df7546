"""The container: whole files there and back, and nothing else."""

import hashlib
import math

import numpy as np
import pyro
import pytest
import torch
from conftest import Ladder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro.distributions import Bernoulli, Normal

from pyro_onebit import BitsData, Config, OneBitData, build
from pyro_onebit.coding import Codec, pack, unpack
from pyro_onebit.coding.container import _HEADER
from pyro_onebit.data import gray_code
from pyro_onebit.errors import DamagedError, InputError
from pyro_onebit.exact import gaussian_optimum


@pytest.fixture(scope="module")
def run(trained):
    return trained(1, 5)


@pytest.fixture(scope="module")
def codec(run) -> Codec:
    return Codec(run.model, run.guide, run.data)


def restore(run, container: bytes) -> bytes:
    return unpack(run.model, run.guide, run.data, container)[0]


def signed(body: bytes) -> bytes:
    """With a checksum that fits, as an attacker would write it."""
    return body + hashlib.sha256(body).digest()[:16]


def forged(container: bytes, field: int, value: int | bytes) -> bytes:
    """A container with another value in a field of its header."""
    header = list(_HEADER.unpack_from(container))
    header[field] = value
    return signed(_HEADER.pack(*header) + container[_HEADER.size : -16])


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
    assert (report.net + report.initial) * report.samples <= 8 * (report.container_bytes - 76)
    assert (report.net + report.initial) * report.samples > 8 * (report.container_bytes - 76) - 33
    assert len(container) == report.container_bytes
    empty = pack(codec, b"")[1]
    assert (empty.samples, empty.net, empty.entropy) == (0, None, None)


def test_no_random_damage_gets_through(run, codec: Codec) -> None:
    content = bytes(range(200))
    container, _ = pack(codec, content)
    random = np.random.default_rng(0)
    for i in range(2000):
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


@pytest.mark.parametrize(("field", "value"), [(7, 2**63), (9, bytes(16))], ids=["length", "digest"])
def test_a_length_or_a_digest_of_another_file_is_refused(run, codec: Codec, field: int, value: int | bytes) -> None:
    with pytest.raises(DamagedError):
        restore(run, forged(pack(codec, b"some content")[0], field, value))


def test_a_length_that_nothing_pays_for_is_refused(run, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a run's samples cost nothing at all, so that words would never come to their end."""
    container, _ = pack(codec, b"some content")
    most = (len(container) - _HEADER.size - 16) * 2**16
    with pytest.raises(DamagedError, match=f"its words can hold {most} at most"):
        restore(run, forged(container, 7, most + 1))
    monkeypatch.setattr(codec, "encode", lambda samples, quiet: np.ones(1, np.uint32))
    with pytest.raises(InputError, match="take a run that is less sure"):
        pack(codec, bytes(2**18 + 1))


def test_a_container_of_format_1_is_decoded(run, codec: Codec) -> None:
    """It lacks the byte that says how many bits a sample stands for."""
    container, _ = pack(codec, b"some content")
    assert restore(run, signed(b"onebit\x01" + container[8:-16])) == b"some content"


@pytest.mark.parametrize("bits", [2, 3])
def test_a_sample_stands_for_several_bits(bits: int) -> None:
    data = BitsData((3,) * bits)
    best = gaussian_optimum(data, order=gray_code((1,) * bits))

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z1", Normal(torch.zeros(len(x), 1, dtype=x.dtype), 1.0).to_event(1))
            loc, scale = (torch.tensor(part, dtype=z.dtype) for part in (best.loc, best.scale))
            shares = (Normal(loc, scale).log_prob(z) + data.probs.log()).softmax(-1)
            pyro.sample("x", Bernoulli(shares @ data.codewords.double()).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        number = (x[:, ::3] @ 2.0 ** torch.arange(bits - 1, -1, -1, dtype=x.dtype)).long()
        with pyro.plate("data", len(x), dim=-1):
            loc, scale = (torch.tensor(part, dtype=x.dtype)[number][:, None] for part in (best.loc, best.scale))
            pyro.sample("z1", Normal(loc, scale).to_event(1))

    codec = Codec(model, guide, data, bins=1024)
    assert codec.rate.neg_elbo == pytest.approx(best.loss / math.log(2.0), abs=1e-6)
    for content in (b"", b"\xa7", bytes(range(250)) * 2):  # 8 and 4000 bits are no multiples of 3
        container, report = pack(codec, content)
        assert unpack(model, guide, data, container)[0] == content
        assert report.samples == -(-8 * len(content) // bits)
    assert report.net == pytest.approx(report.predicted, abs=3.0 * report.standard_error)
    assert report.per_bit == pytest.approx(report.net / bits)


def test_the_more_codewords_the_finer_the_grid_of_z1() -> None:
    one, two = (Ladder(bits, layers=2) for bits in (1, 2))
    assert [Codec(own.model, own.guide, own.data, bins=16).points for own in (one, two)] == [1024, 2048]
    assert Codec(one.model, one.guide, one.data, bins=16, points=128).points == 128


def test_foreign_files_and_runs_are_named(run, codec: Codec) -> None:
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
        unpack(*build(Config(ndims=6)), container)
    other = OneBitData(run.data.ndims, 0.4)
    assert unpack(run.model, run.guide, other, container)[0] == b"content"
