"""A grid's runs spread over processes, here or on a cluster, whatever becomes of the processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from pyro_onebit.errors import InputError, ProgramError, TrainingError, WriteError
from pyro_onebit.files import refuse_link
from pyro_onebit.registry import Snapshot, install, snapshot
from pyro_onebit.studies.grid import run_path
from pyro_onebit.studies.runs import is_busy
from pyro_onebit.system import Lost, check_memory, connected, in_processes, on_cluster, progress
from pyro_onebit.training import Config


class _Left(Enum):
    """In place of a result."""

    BUSY = "another command is training it"


#: What is done for a configuration in its run's directory; the last argument, if there is one, is told each step.
Work = Callable[[Config, Path, Callable[[int], None] | None], Any]
#: What a process is handed: a run's index, by which it is known here, and what else `_in_worker` takes.
_Task = tuple[int, Snapshot, Work, Config, Path, bool]
_ALONE = Lock()
#: Beside the bar stand so many of the runs that are trained at the moment.
_TOLD = 2
#: What a process takes that has imported all, before it trains.
_PROCESS_BYTES = 2e8
#: Seconds between two steps that a run tells of.
_TELLING = 0.25
#: A failure's reason is no longer than this: a program may say anything.
_MAX_REASON = 2000


def check_jobs(jobs: int, runs: int, timeout: float | None, cluster: str | None) -> None:
    """Refuse fewer than one process, more than there is memory for, and a time limit that cannot be held.

    Raises:
        InputError: If `jobs` is below 1 or needs more memory than there is, `timeout` is not positive, or is given with
            a cluster.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")
    if timeout is not None and not timeout > 0.0:
        raise InputError(f"timeout is {timeout}; it must be positive, in seconds")
    if timeout is not None and cluster is not None:
        raise InputError("timeout is for processes on this machine; what a cluster's worker is at cannot be ended")
    if cluster is None and min(jobs, runs) > 1:
        check_memory(min(jobs, runs) * _PROCESS_BYTES, f"jobs {jobs}")


class _Progress:
    """A bar that counts the steps of all runs, and names those that are trained at the moment.

    Arguments:
        bar: A tqdm bar of no length yet.
        configs: The runs.
    """

    def __init__(self, bar: Any, configs: Sequence[Config]) -> None:
        self._bar, self._configs = bar, configs
        #: Steps that are done of each run that has begun.
        self._done: dict[int, int] = {}
        self._running: list[int] = []
        self._ended = 0
        bar.total = sum(config.recipe.steps for config in configs)

    def begin(self, i: int) -> None:
        self._running.append(i)
        self._done.setdefault(i, 0)
        self._tell()

    def hear(self, i: int, step: int) -> None:
        if step < self._done[i]:  # it begins again
            self._bar.total += self._done[i]
            self._done[i] = 0
        self._bar.update(step + 1 - self._done[i])
        self._done[i] = step + 1
        self._tell()

    def leave(self, i: int) -> None:
        self._running.remove(i)

    def end(self, i: int) -> None:
        self._ended += 1
        self._bar.update(self._configs[i].recipe.steps - self._done[i])
        self._tell()

    def _tell(self) -> None:
        now = []
        for i in self._running[:_TOLD]:
            config = self._configs[i]
            judged = ", judged" * (self._done[i] >= config.recipe.steps)
            now.append(f"n = {config.ndims}, {config.layers} layer{'s' * (config.layers > 1)}{judged}")
        self._bar.set_description_str(f"{self._ended}/{len(self._configs)} runs", refresh=False)
        self._bar.set_postfix_str("; ".join(now))


#: As wide as 80 characters are with two runs.
_BAR_FORMAT = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}"


def run_all(
    work: Work,
    configs: Sequence[Config],
    out: Path,
    jobs: int,
    *,
    quiet: bool,
    timeout: float | None = None,
    cluster: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Do something for each configuration and the directory of its run, in processes; as they end.

    What another command is training at the moment is left to the end, so that two share a grid. A run whose process
    is killed is tried once more, alone, and then given up (on a cluster, when its scheduler does). If a disk is full,
    no other run is begun.

    Arguments:
        work: What to do; a function of a module, so that a process can find it.
        configs: The configurations.
        out: The study's directory.
        jobs: Processes, each with one thread; at least 1. A single one, without `timeout`, is this one.
        quiet: Show no progress bar.
        timeout: Seconds after which a run is given up.
        cluster: Address of a Dask scheduler, in place of `jobs`.

    Returns:
        Index and result of each, or why there is none.

    Raises:
        InputError: If there is no such scheduler, a run's directory is a link, or `work` says so of a run.
        WriteError: If something could not be written, once the runs that had begun are as far as they come.
    """
    # The longest runs first, so that no core is left with one of them at the end.
    waiting = sorted(range(len(configs)), key=lambda i: (-configs[i].layers, -configs[i].ndims, i))
    paths = [run_path(out, config) for config in configs]
    for path in {path.parent for path in paths} | set(paths):
        refuse_link(path)
    full: list[WriteError] = []
    share = True
    registered = snapshot()

    def tasks(indices: Sequence[int]) -> Iterator[_Task]:
        for i in indices:
            if full:
                return
            shown.begin(i)
            yield i, registered, work, configs[i], paths[i], share

    def attempt(indices: Sequence[int], processes: int) -> Iterator[tuple[int, Any]]:
        """Results of runs as they end, without those that another command is training or that find the disk full."""
        results: Iterable[tuple[Any, Any]]
        if client is not None:
            results = on_cluster(client, _in_worker, tasks(indices))
        elif jobs == 1 and timeout is None:
            results = ((task, _in_worker(*task, partial(hear, task) if hear else None)) for task in tasks(indices))
        else:
            results = in_processes(_in_worker, tasks(indices), processes, timeout, hear)
        for (i, *_), result in results:
            shown.leave(i)
            if isinstance(result, WriteError):
                full.append(result)
                if client is not None:
                    return  # what is running there ends by itself
            elif result is not _Left.BUSY:
                yield i, result

    def ended(i: int, result: Any) -> tuple[int, Any]:
        waiting.remove(i)
        shown.end(i)
        return i, _reasons(timeout)[result] if isinstance(result, Lost) else result

    with (
        progress(quiet=quiet, total=1, bar_format=_BAR_FORMAT) as bar,
        nullcontext() if cluster is None else connected(cluster) as client,
    ):
        shown = _Progress(bar, configs)
        hear: Callable[[Any, int], None] | None = None if bar.disable else lambda task, step: shown.hear(task[0], step)
        while waiting and not full:
            killed: list[int] = []
            for i, result in attempt(tuple(waiting), min(jobs, len(waiting))):
                if result is Lost.KILLED:
                    killed.append(i)
                else:
                    yield ended(i, result)
            share = False
            for i in killed:
                # Alone: it may have been killed for the memory that others took.
                for _, result in attempt([i], 1):
                    yield ended(i, result)
    if full:
        raise full[0]


def _reasons(timeout: float | None) -> dict[Lost, str]:
    return {
        Lost.KILLED: "each process that trained it was killed; it may have taken too much memory",
        Lost.INTERRUPTED: "KeyboardInterrupt",
        Lost.LATE: f"it did not end within {timeout} seconds; the same command resumes it",
    }


def _in_worker(
    _: int,
    registered: Snapshot,
    work: Work,
    config: Config,
    path: Path,
    share: bool,
    tell: Callable[[int], None] | None = None,
) -> Any:
    """One run's result; why there is none; or that it was left, as `share` says, to another command."""
    try:
        # What a script has registered is not known in another process.
        install(registered)
        if share and is_busy(path):
            return _Left.BUSY
        # A cluster's process may have several threads, and torch and Pyro have one state for all of them.
        with _ALONE:
            return work(config, path, _now_and_then(tell, config.recipe.steps) if tell else None)
    except (TrainingError, ArithmeticError, ProgramError) as error:
        return str(error)
    except WriteError as error:
        return error
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a guide is a user's program: whatever it does, the other runs go on
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_REASON]


def _now_and_then(tell: Callable[[int], None], steps: int) -> Callable[[int], None]:
    """What tells of some of the steps, and of the last."""
    told = -math.inf

    def on_step(step: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told > _TELLING or step + 1 == steps:
            told = now
            tell(step)

    return on_step
