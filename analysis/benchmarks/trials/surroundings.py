"""What changes around a study while it runs, its clock and its directories; and runs that come from elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trials.common import STUDY, TRAIN, Ended, Row, fresh, inside, json_rows, row_of, small_run
from trials.processes import came_out, completed, halfway, study, undisturbed

#: A preloaded library that sets a process's clock another way from when a file is there. The machine's clock stays,
#: and with it the times of files, which then lie in the process's future or past.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void) { return access(FLAG, F_OK) ? 0 : SECONDS; }

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = ((int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"))(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = ((int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday"))(now, zone);
    if (!failed) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
#: Parts of a study's directory, by what is said of them.
PARTS: dict[str, Callable[[Path], list[Path]]] = {
    "a study's directory": lambda out: [out],
    "the directory of its runs": lambda out: [out / "runs"],
    "a run's directory": lambda out: sorted(out.glob("runs/*"))[:1],
    "each run's directory": lambda out: sorted(out.glob("runs/*")),
    "all of them": lambda out: [out, out / "runs", *out.glob("runs/*")],
}


def surroundings(args: argparse.Namespace) -> Iterator[Row]:
    """The clock set back or forward, and directories made read-only, in mid-study and before a command."""
    expected, place = undisturbed(args), fresh(args.out / "surroundings").resolve()
    if shutil.which("cc"):
        for name, seconds in (("back", -86400), ("forward", 86400)):
            yield from _another_time(args, place, name, seconds, expected)
    if _may_fix(place):
        for name, parts in PARTS.items():
            yield from _read_only(args, fresh(place / "fixed"), name, parts, expected)
        yield from _read_only_before(fresh(place / "before"))


def _another_time(args: argparse.Namespace, place: Path, name: str, seconds: int, expected: Any) -> Iterator[Row]:
    out, flag, library = fresh(place / name), place / f"{name}.flag", place / f"{name}.so"
    defined = [f'-DFLAG="{flag}"', f"-DSECONDS={seconds}"]
    subprocess.run(
        ["cc", "-shared", "-fPIC", *defined, "-x", "c", "-o", library, "-"], input=CLOCK.encode(), check=True
    )
    for again in ("", ", then the same command"):
        begun = halfway(study(args, out, "--timeout", "3600"), out, LD_PRELOAD=str(library))
        flag.touch()
        ended, what = begun.wait(), f"the clock set {name} by a day{again}"
        yield row_of("surroundings", what, ended, right=came_out(ended, out, expected))


def _may_fix(place: Path) -> bool:
    """Whether this user may make a directory read-only for all, itself as well."""
    try:
        with _fixed([place]):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def _fixed(directories: Sequence[Path]) -> Iterator[None]:
    """Within, nothing in these directories is made, renamed or removed, not even by root, whom no mode binds."""
    try:
        subprocess.run(["chattr", "+i", *directories], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["chattr", "-i", *directories], check=False, capture_output=True)


def _read_only(
    args: argparse.Namespace, out: Path, name: str, parts: Callable[[Path], list[Path]], expected: Any
) -> Iterator[Row]:
    begun = halfway(study(args, out), out)
    with _fixed(parts(out)):
        ended = begun.wait()
    # Where nothing more is to be written, a study may end as if nothing had happened.
    right = ended.code in (1, 2) or came_out(ended, out, expected)
    yield row_of("surroundings", f"read-only in mid-study: {name}", ended, right=right)
    ended, same = completed(args, out, expected)
    yield row_of("surroundings", f"the same command after: {name}", ended, right=same)


def _read_only_before(place: Path) -> Iterator[Row]:
    """What only reads works; what writes is a line."""
    out = place / "study"
    inside(*STUDY, out)
    run = next(out.glob("runs/*"))
    (place / "content").write_bytes(b"content")
    asked: list[tuple[int, list[str | Path]]] = [
        (0, ["evaluate", run]),
        (0, ["bounds", run, "--repeats", "2"]),
        (0, ["encode", "--run", run, place / "content", place / "container", "--quiet"]),
        (2, ["report", out]),
        (2, [*TRAIN, run]),
        (2, [*TRAIN, out / "new"]),
        (2, ["study", "--ndims", "3", "--layers", "1", "--steps", "3", "--jobs", "1", "--quiet", "--out", out]),
    ]
    with _fixed([out, run, out / "runs", out / "figures"]):
        for code, arguments in asked:
            ended = inside(*arguments)
            what = f"{arguments[0]}, read-only from the start"
            yield row_of("surroundings", what, ended, right=ended.code == code)


def strangers(args: argparse.Namespace) -> Iterator[Row]:
    """``onebit bounds`` on two-layer runs that come from elsewhere: copied, incomplete, or forged."""
    place, chance = fresh(args.out / "strangers"), random.Random(args.seed)
    torch.manual_seed(args.seed)
    others = [small_run(place / f"other{i}", layers=2, **changes) for i, changes in enumerate(OTHERS)]
    for run in others:
        bounds = _bounds(run)
        yield row_of("strangers", "a run as it was written", bounds, right=_coherent(bounds))
        copy = shutil.copytree(run, fresh(place / "elsewhere") / "run of a stranger")
        shutil.rmtree(place / "away", ignore_errors=True)
        run.rename(place / "away")
        ended = _bounds(copy)
        (place / "away").rename(run)
        yield row_of("strangers", "a copy, the original gone", ended, right=ended == bounds)
        for name in sorted(path.name for path in run.iterdir()):
            copy = shutil.copytree(run, fresh(place / "elsewhere") / "run")
            (copy / name).unlink()
            ended = _bounds(copy)
            right = ended.code == 2 or (ended == bounds and name in ("metrics.json", "posterior.nc"))
            yield row_of("strangers", f"a copy without {name}", ended, right=right)
    for _ in range(args.strangers):
        run, other = chance.sample(others, 2)
        copy = shutil.copytree(run, fresh(place / "elsewhere") / "run")
        what = chance.choice((_another_file, _another_setting, _other_parameters))(copy, other, chance)
        ended = _bounds(copy)
        right = ended.code in (1, 2) or _coherent(ended)
        yield row_of("strangers", what, ended, right=right)


#: Two-layer runs, different in what they are and how they were trained.
OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"ndims": 1000, "prob": 0.3},
    {"guide": "top_down"},
    {"guide": "two_layer_skip", "seed": 1},
    {"guide": "mean_field", "objective": "iwae"},
)
#: What a forger puts in a setting's place, other than another run's.
SETTINGS: dict[str, list[Any]] = {
    "ndims": [1, 2, 4, 1000, 10**6],
    "prob": [1e-9, 0.1, 0.999],
    "layers": [1, 2, 3],
    "guide": ["two_layer", "two_layer_skip", "top_down", "mean_field", "flow", "nobody's"],
    "model": ["two_layer", "one_layer", "nobody's"],
    "width_x": [1, 11, 10**9],
    "width_z": [1, 99, 10**9],
    "hidden_layers": [1, 4, 10**6],
    "dtype": ["float64", "float16"],
    "preset": ["reference", "thorough", "nobody's"],
}


def _bounds(run: Path) -> Ended:
    return inside("bounds", run, "--particles", "1", "10", "100", "--repeats", "10", "--json")


def _coherent(ended: Ended) -> bool:
    """Whether the exact figures are in the order that they must have: ELBO = IWAE of one <= of more <= evidence."""
    content = json_rows(ended)
    if ended.code or content is None:
        return False
    averages = [row["expected"] for row in content["rows"] if row["codeword"] is None]
    rising = [content["elbo"], *averages, content["log_evidence"]]
    if content["eubo"] is not None:
        rising.append(content["eubo"])
    loose = 1e-6 * max(map(abs, rising))
    return abs(averages[0] - content["elbo"]) <= loose and all(a <= b + loose for a, b in pairwise(rising))


def _another_file(copy: Path, other: Path, chance: random.Random) -> str:
    name = chance.choice(["config.json", "parameters.safetensors", "history.csv", "metrics.json"])
    shutil.copy(other / name, copy / name)
    return f"another run's {name}"


def _another_setting(copy: Path, other: Path, chance: random.Random) -> str:
    content = json.loads((copy / "config.json").read_text())
    elsewhere = json.loads((other / "config.json").read_text())["config"]
    name = chance.choice(sorted(elsewhere))
    content["config"][name] = chance.choice(SETTINGS.get(name, [elsewhere[name]]))
    (copy / "config.json").write_text(json.dumps(content, indent=1))
    (copy / "metrics.json").unlink()  # it would give the forger away
    return f"another {name}"


def _other_parameters(copy: Path, other: Path, chance: random.Random) -> str:
    file = copy / "parameters.safetensors"
    tensors = load_file(file)
    kind, forge = chance.choice(tuple(PARAMETERS.items()))
    whole = chance.random() < 0.5
    for name in sorted(tensors) if whole else chance.sample(sorted(tensors), 1):
        tensors[name] = forge(tensors[name]).contiguous()
    save_file(tensors, file, {"writer": "pyro_onebit"})
    return f"{'all parameters' if whole else 'a parameter'} {kind}"


#: What a forger makes of a tensor.
PARAMETERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nought": torch.zeros_like,
    "negated": torch.neg,
    "times 3": lambda tensor: 3.0 * tensor,
    "times 1000": lambda tensor: 1e3 * tensor,
    "times 1e30": lambda tensor: 1e30 * tensor,
    "of noise": torch.randn_like,
    "of loud noise": lambda tensor: 100.0 * torch.randn_like(tensor),
    "reversed": lambda tensor: tensor.flatten().flip(0).reshape(tensor.shape),
    "of half precision": torch.Tensor.half,
    "of integers": torch.Tensor.int,
    "complex": lambda tensor: tensor.to(torch.complex64),
    "not a number": lambda tensor: tensor * float("nan"),
    "cut": lambda tensor: tensor.flatten()[:1],
}
