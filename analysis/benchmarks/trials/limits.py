"""What asks for more than there is, and what a caller may have set of torch, numpy and threads."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import pyro
import torch

from pyro_onebit import Config, build, fit
from trials.common import Ended, Row, fresh, inside, row_of, shell, small_run


def sizes(args: argparse.Namespace) -> Iterator[Row]:
    """Counts and files that need more memory, or more time, than anybody has."""
    place = fresh(args.out / "sizes")
    run = small_run(place / "run")
    with (place / "sparse").open("wb") as file:
        file.truncate(2**40)
    with (place / "container").open("wb") as file:
        file.write(b"onebit\1")
        file.truncate(2**40)
    (place / "ones").mkdir()
    (place / "ones" / "results.csv").write_text("1\n" * 4_000_000)
    asked = [
        ("train", "--particles", 10**10, "--out", place / "a"),
        ("train", "--particles", 10**10, "--layers", "2", "--out", place / "b"),
        ("train", "--particles", 10**10, "--preset", "reference", "--out", place / "c"),
        ("train", "--steps", 10**30, "--out", place / "d"),
        ("train", "--ndims", 10**7, "--out", place / "e"),
        ("train", "--seed", "1" * 400, "--out", place / "f"),
        ("study", "--jobs", 10**6, "--seeds", *range(20000), "--out", place / "g"),
        ("bounds", run, "--repeats", 10**12),
        ("bounds", run, "--particles", 10**12),
        ("bounds", run, "--particles", 10**10, "--repeats", 10**10),
        ("encode", "--run", run, place / "sparse", place / "h"),
        ("decode", "--run", run, place / "sparse", place / "i"),
        ("decode", "--run", run, place / "container", place / "j"),
        ("report", place / "ones"),
    ]
    for arguments in asked:
        ended = inside(*map(str, arguments))
        what = " ".join(map(str, arguments[:3])).replace(str(place), "")[:60]
        yield row_of("sizes", what, ended, right=ended.code == 2 and ended.err.startswith("error: "))
    # A million dimensions are allowed where there is memory for them; here there is less.
    ended = shell("ulimit -v 3000000; onebit train --ndims 1000000 --steps 3 --quiet --out million", place)
    yield row_of("sizes", "train --ndims 1000000, 3 GB", ended, right=ended.code in (1, 2))


@contextmanager
def _set(setter: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(before)


def settings(args: argparse.Namespace) -> Iterator[Row]:
    """The same run under whatever is set, and in two threads at once."""
    config = Config(ndims=3, layers=2, steps=10)
    train = lambda: fit(*build(config), config).metrics["loss"]  # noqa: E731
    expected = train()
    around: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "float32 matmul precision": lambda: _set(torch.set_float32_matmul_precision, "medium", "highest"),
        "np.seterr": lambda: np.errstate(all="raise"),
        "autocast": lambda: torch.autocast("cpu"),
        "float64 as default": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
        "meta as default device": lambda: torch.device("meta"),
        "two threads": lambda: _set(torch.set_num_threads, 2, 1),
        "Pyro's validation": lambda: pyro.validation_enabled(True),
        "deterministic algorithms": lambda: _set(torch.use_deterministic_algorithms, True, False),
    }
    for name, context in around.items():
        error = ""
        with ExitStack() as stack:
            stack.enter_context(context())
            try:
                found = train()
            except BaseException as raised:
                found, error = None, f"Traceback: {type(raised).__name__}: {raised}"
        yield row_of("settings", name, Ended(0, repr(found), error), right=found == expected)
    flag = pyro.infer.util.is_validation_enabled()
    for _ in range(args.threads):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: train(), range(4)))
        right = set(found) == {expected} and pyro.infer.util.is_validation_enabled() == flag
        yield row_of("settings", "four threads at once", Ended(0, repr(found), ""), right=right)
