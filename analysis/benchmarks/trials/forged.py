"""Files that are damaged, or forged by somebody who knows their format."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pyro_onebit import Config, InputError, TrainingError, build, fit, load_run
from pyro_onebit.coding import Codec, pack, unpack
from pyro_onebit.studies import StateFile
from trials.common import Ended, Row, fresh, inside, row_of, small_run

#: What a number or a name may be replaced by.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, -(10**12), 1e308, float("nan"), float("inf"), "", "x" * 10_000, "../../etc", [], {}),
    *([1] * 1000, {"a": {"b": []}}, "\u0000", "NaN"),
)
HEADER = struct.Struct("<6sBBBHQQ16s16s")


def called(section: str, what: str, function: Callable[[], Any], right: Callable[[Any], bool]) -> Row:
    """What a call gives, or refuses with an error of the package's own."""
    try:
        result = function()
    except (InputError, TrainingError, ArithmeticError) as error:
        return row_of(section, what, Ended(2, "", str(error)), right=True)
    except BaseException:
        return row_of(section, what, Ended(-1, "", traceback.format_exc()), right=False)
    return row_of(section, what, Ended(0, "taken", ""), right=right(result))


def containers(args: argparse.Namespace) -> Iterator[Row]:
    """Random damage, and headers that are forged and signed."""
    run = load_run(small_run(fresh(args.out / "containers")))
    programs = (run.model, run.guide, run.data)
    content, chance = bytes(range(200)), random.Random(args.seed)
    container, _ = pack(Codec(*programs), content)
    restored = lambda damaged: lambda: unpack(*programs, damaged)[0]  # noqa: E731
    for i in range(args.containers):
        damaged, kind = _damaged(container, i, chance)
        yield called("containers", kind, restored(damaged), lambda found: found == content)
    body = container[:-16]
    for _ in range(args.signed):
        forged = bytearray(body)
        for at in chance.sample(range(len(body)), chance.randint(1, 3)):
            forged[at] = chance.randrange(256)
        whole = bytes(forged) + hashlib.sha256(forged).digest()[:16]
        yield called("containers", "signed", restored(whole), lambda found: found == content)
    sure = fresh(args.out / "sure")
    run = load_run(small_run(sure, ndims=1, prob=1e-9))
    programs = (run.model, run.guide, run.data)
    short, _ = pack(Codec(*programs), b"\0")
    fields = list(HEADER.unpack_from(short))
    for length in (10**6, 10**9, 2**62):
        fields[6] = length
        forged = HEADER.pack(*fields) + short[HEADER.size : -16]
        whole = forged + hashlib.sha256(forged).digest()[:16]
        decode = lambda whole=whole: unpack(*programs, whole)  # noqa: E731
        yield called("containers", "a length that nothing pays for", decode, lambda _: False)


def _damaged(container: bytes, i: int, chance: random.Random) -> tuple[bytes, str]:
    damaged = bytearray(container)
    at, to = sorted(chance.randrange(len(container)) for _ in range(2))
    kind = ("a bit", "cut", "a hole", "more", "noise")[i % 5]
    if kind == "a bit":
        damaged[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del damaged[at:]
    elif kind == "a hole":
        del damaged[at:to]
    elif kind == "more":
        damaged[at:at] = chance.randbytes(to - at)
    else:
        damaged[at:to] = chance.randbytes(to - at)
    return bytes(damaged), kind


def files(args: argparse.Namespace) -> Iterator[Row]:
    """A run's and a study's files with values, lines and tensors that nobody wrote."""
    place, chance = fresh(args.out / "files"), random.Random(args.seed)
    study = ("study", "--ndims", "2", "--layers", "1", "2", "--steps", "3", "--jobs", "1", "--quiet", "--out")
    inside(*study, place / "study")
    runs = sorted((place / "study" / "runs").iterdir())
    for i in range(args.files):
        own = fresh(place / "forged") / "study"
        shutil.copytree(place / "study", own)
        run = own / "runs" / chance.choice(runs).name
        target = chance.choice(
            [
                *(run / name for name in ("config.json", "metrics.json", "history.csv", "parameters.safetensors")),
                *(own / name for name in ("results.csv", "study.toml")),
            ]
        )
        what = f"{target.name}: {_forge(target, i, chance)}"
        if target.parent == run:
            ended = inside("evaluate", run)
        elif target.name == "study.toml":
            ended = inside("study", "--config", target, "--dry-run", "--out", own)
        else:
            ended = inside("report", own)
        yield row_of("files", what, ended, right=ended.code in (0, 1, 2))


def _forge(target: Path, i: int, chance: random.Random) -> str:
    """Change a file; what was done to it."""
    kind = ("bytes", "cut", "empty", "huge", "value", "value", "value", "value")[i % 8]
    content = target.read_bytes()
    if kind == "bytes":
        at = chance.randrange(len(content))
        target.write_bytes(content[:at] + chance.randbytes(8) + content[at + 8 :])
    elif kind == "cut":
        target.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "empty":
        target.write_bytes(b"")
    elif kind == "huge":
        with target.open("ab") as file:
            file.truncate(2**40)
    elif target.suffix == ".json":
        forged = json.loads(content)
        _replace(forged, chance)
        target.write_text(json.dumps(forged))
    elif target.suffix == ".csv":
        lines = [line.split(",") for line in content.decode().splitlines()]
        line = chance.choice(lines)
        line[chance.randrange(len(line))] = chance.choice(["1" * 400, "1" * 5000, "nan", "", '"', "x,y", "-1", "1e999"])
        target.write_text("\n".join(map(",".join, lines)) + "\n", errors="replace")
    elif target.suffix == ".toml":
        value = chance.choice(["[]", "-1", "[[1]]", "1" * 400, "nan", "'x'", "[" * 5000, "1979-05-27"])
        target.write_text(f"{chance.choice(['ndims', 'layers', 'seeds', 'prob', 'steps', 'preset'])} = {value}\n")
    else:
        tensors = load_file(target)
        name = chance.choice(sorted(tensors))
        odd = [
            tensors[name] * float("nan"),
            tensors[name].flatten()[:0],
            torch.zeros(3, 3, 3),
            tensors[name].double() * 1e300,
        ]
        tensors[name] = chance.choice([*odd, tensors[name].int()])
        save_file(tensors, target)
    return kind


def _replace(part: Any, chance: random.Random) -> None:
    """Replace, remove or add a value somewhere in a JSON object."""
    name = chance.choice(sorted(part))
    if isinstance(part[name], dict) and part[name] and chance.random() < 0.8:
        _replace(part[name], chance)
    elif chance.random() < 0.1:
        del part[name]
    elif chance.random() < 0.1:
        part["more"] = chance.choice(VALUES)
    else:
        part[name] = chance.choice(VALUES)


def states(args: argparse.Namespace) -> Iterator[Row]:
    """States that are resumed from: damaged, or forged with a digest that fits."""
    place, chance = fresh(args.out / "states"), random.Random(args.seed)
    config = Config(ndims=3, layers=2, steps=12, seed=1)
    expected = fit(*build(config), config)
    same = lambda run: run.history == expected.history and _loss(run) == _loss(expected)  # noqa: E731
    path = place / "progress.safetensors"

    class EveryStep(StateFile):
        def due(self) -> bool:
            return True

    def stop(step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    try:
        fit(*build(config), config, on_step=stop, checkpoint=EveryStep(path, config))
    except KeyboardInterrupt:
        whole = path.read_bytes()
    resumed = lambda: fit(*build(config), config, checkpoint=StateFile(path, config))  # noqa: E731
    yield called("states", "whole", resumed, same)
    for i in range(args.states):
        path.write_bytes(whole)
        if i % 3 == 0:
            damaged, kind = _damaged(whole, i // 3, chance)
            path.write_bytes(damaged)
        else:
            state = StateFile(path, config).restore()
            assert state is not None
            kind = _forge_state(state, chance)
            try:
                StateFile(path, config).keep(state)
            except ValueError:  # it is not JSON
                continue
        # What is plausible cannot be told from what was there; what is not must not be taken.
        plausible = lambda run: bool(torch.isfinite(_parameters(run)).all())  # noqa: E731
        yield called("states", kind, resumed, plausible if i % 3 else same)


def _forge_state(state: dict[str, Any], chance: random.Random) -> str:
    """Put something else in the place of a part of a state; which part."""
    part: Any = state
    trail = []
    while True:
        names = sorted(part) if isinstance(part, dict) else list(range(len(part)))
        name = chance.choice(names)
        trail.append(str(name))
        inner = part[name]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.85:
            part = inner
            continue
        if isinstance(inner, torch.Tensor):
            odd = [inner[:0] if inner.ndim else inner[None], inner.float() * float("nan"), inner.bool(), 1.5, None]
            part[name] = chance.choice([*odd, torch.zeros(10**6), inner.to(torch.int8)])
        else:
            part[name] = chance.choice([None, True, -(10**12), 10**30, 1e300, -1.0, "x", [], {}, [1] * 1000])
        return "forged " + trail[0]


def _loss(run: Any) -> float:
    return float(run.metrics["loss"])


def _parameters(run: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in [*run.model.parameters(), *run.guide.parameters()]])
