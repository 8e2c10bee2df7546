"""How much memory there is: what would take more is refused in words, before any is taken."""

from __future__ import annotations

import gc
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_onebit.errors import InputError

_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes that this process may still take, as the system, its container and its own limit say; else infinite."""
    free = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        free.append(1024 * _entries(_MEMINFO)["MemAvailable:"])
    with suppress(OSError, ValueError, IndexError, KeyError):
        # Of what a container holds, files that are cached are given up when memory is wanted.
        free.append(int((_CGROUP / "memory.max").read_text()) - _entries(_CGROUP / "memory.stat")["anon"])
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            free.append(limit - pages * resource.getpagesize())
    return max(0.0, min(free))


def _entries(path: Path) -> dict[str, int]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return {line[0]: int(line[1]) for line in lines}


def check_memory(needed: float, what: str) -> None:
    """Refuse what would take more memory than there is.

    Arguments:
        needed: Bytes that it takes at least.
        what: What takes it, and who could ask for less, in words.

    Raises:
        InputError: If there are fewer.
    """
    free = available_memory()
    if needed > free:
        raise InputError(f"{what} needs {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; take less")


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, no garbage is collected; what exists at the end is never searched for it.

    Importing makes next to none, and takes a third longer with the collector on; to search all that torch and others
    have created takes a quarter of a second each time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
