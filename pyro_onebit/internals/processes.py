"""joblib and loky: processes that are not disturbed by Ctrl-C, and how one learns that one was killed."""

from __future__ import annotations

import multiprocessing.resource_tracker
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from joblib import Parallel, delayed
from joblib.externals import loky
from joblib.externals.loky.process_executor import TerminatedWorkerError


class ProcessKilledError(RuntimeError):
    """A process was killed, and with it the others of its pool."""


def in_processes(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], processes: int) -> Iterator[Any]:
    """What a function returns for each task, as it ends.

    Relied on: processes inherit the mask of blocked signals, which the resource trackers of multiprocessing and loky,
    once they run, leave alone; loky raises `TerminatedWorkerError` when a process is killed.

    Raises:
        ProcessKilledError: If a process is killed.
    """
    for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
        tracker.ensure_running()  # which else would unblock what is blocked here
    # A Ctrl-C is for this process alone, which then ends the others without a word.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        parallel = Parallel(n_jobs=processes, batch_size=1, return_as="generator_unordered")
        ending = parallel(delayed(function)(*task) for task in tasks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield from ending
    except TerminatedWorkerError as error:
        raise ProcessKilledError from error
