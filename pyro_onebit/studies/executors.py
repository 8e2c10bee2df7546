"""A grid's runs spread over processes, here or on a cluster, whatever becomes of the processes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from pyro_onebit.errors import InputError, ProgramError, TrainingError, WriteError
from pyro_onebit.files import refuse_link
from pyro_onebit.registry import Snapshot, install, snapshot
from pyro_onebit.studies.runs import is_busy, run_path
from pyro_onebit.system import Lost, check_memory, in_processes, progress
from pyro_onebit.training import Config


class _Left(Enum):
    """In place of a result."""

    BUSY = "another command is training it"


#: What is done for a configuration in its run's directory; the last argument, if there is one, is told each step.
Work = Callable[[Config, Path, Callable[[int], None] | None], Any]
#: What a process is handed: `_in_worker`'s arguments.
_Task = tuple[Snapshot, Work, int, Config, Path, bool]
#: What is told the index of a run and the step that it is at.
_Hear = Callable[[int, int], None]
_Runner = Callable[[Iterable[_Task], int], Iterator[tuple[int, Any]]]
_ALONE = Lock()
#: Beside the bar stand so many of the runs that are trained at the moment.
_TOLD = 2
#: What a process takes that has imported all, before it trains.
_PROCESS_BYTES = 2e8
#: Seconds between two steps that a run tells of.
_TELLING = 0.25
#: Seconds after which a cluster without workers is given up.
_DESERTED = 30.0
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
            yield registered, work, i, configs[i], paths[i], share

    def ended(i: int, result: Any) -> tuple[int, Any]:
        waiting.remove(i)
        shown.end(i)
        return i, _reasons(timeout)[result] if isinstance(result, Lost) else result

    with ExitStack() as stack:
        bar = stack.enter_context(progress(quiet=quiet, total=1, bar_format=_BAR_FORMAT))
        shown = _Progress(bar, configs)
        hear = None if bar.disable else shown.hear
        if cluster is not None:
            run: _Runner = partial(_on_cluster, stack.enter_context(_client(cluster)))
        else:
            run = partial(_here, hear) if jobs == 1 and timeout is None else partial(_in_processes, timeout, hear)
        while waiting and not full:
            killed: list[int] = []
            for i, result in run(tasks(tuple(waiting)), min(jobs, len(waiting))):
                shown.leave(i)
                if isinstance(result, WriteError):
                    full.append(result)
                elif result is Lost.KILLED:
                    killed.append(i)
                elif result is not _Left.BUSY:
                    yield ended(i, result)
            share = False
            for i in killed:
                # Alone: it may have been killed for the memory that others took.
                for _, result in run(tasks([i]), 1):
                    shown.leave(i)
                    if isinstance(result, WriteError):
                        full.append(result)
                    else:
                        yield ended(i, result)
    if full:
        raise full[0]


def _reasons(timeout: float | None) -> dict[Lost, str]:
    return {
        Lost.KILLED: "each process that trained it was killed; it may have taken too much memory",
        Lost.INTERRUPTED: "KeyboardInterrupt",
        Lost.LATE: f"it did not end within {timeout} seconds; the same command resumes it",
    }


def _here(hear: _Hear | None, tasks: Iterable[_Task], _: int) -> Iterator[tuple[int, Any]]:
    """What `_in_worker` returns, in this process."""
    for task in tasks:
        yield _in_worker(*task, partial(hear, task[2]) if hear else None)


def _in_processes(
    timeout: float | None, hear: _Hear | None, tasks: Iterable[_Task], processes: int
) -> Iterator[tuple[int, Any]]:
    """The same in processes, as it ends; or how a run's process was lost."""
    heard = None if hear is None else lambda task, step: hear(task[2], step)
    for task, result in in_processes(_in_worker, tasks, processes, timeout, heard):
        yield (task[2], result) if isinstance(result, Lost) else result


def _on_cluster(client: Any, tasks: Iterable[_Task], _: int) -> Iterator[Any]:
    """The same on a cluster, whose scheduler says which run was there when several processes were killed.

    Raises:
        InputError: If the scheduler is gone, or a worker cannot import what a run needs.
    """
    # Not by Dask's executor, which may wait for ever for a result that was lost with its worker.
    from distributed import KilledWorker

    running = {client.submit(_in_worker, *task, pure=False): task[2] for task in tasks}
    for future in _as_completed(client, running):
        # What nothing refers to any more a cluster forgets: a result as it is taken, all of them if this ends early.
        i = running.pop(future)
        try:
            result = future.result()
        except KilledWorker:
            result = i, Lost.KILLED
        except CancelledError:
            raise InputError("the cluster's scheduler is gone; start it and give the same command again") from None
        except ImportError as error:
            raise InputError(f"a worker of the cluster lacks something: {error}; install the same there") from None
        yield result
        if isinstance(result[1], WriteError):
            return  # what is running there ends by itself


def _as_completed(client: Any, futures: Iterable[Any]) -> Iterator[Any]:
    """Futures as they end.

    Raises:
        InputError: If for half a minute there is no worker.
    """
    from distributed import wait

    waiting, seen = set(futures), time.monotonic()
    while waiting:
        with suppress(TimeoutError):
            done = wait(waiting, timeout=1.0, return_when="FIRST_COMPLETED").done
            waiting -= done
            yield from done
        if client.status != "running" or client.scheduler_info()["workers"]:
            seen = time.monotonic()
        elif time.monotonic() - seen > _DESERTED:
            raise InputError("the cluster has no worker left; start one and give the same command again")


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a cluster needs Dask: pip install 'pyro-onebit[cluster]'") from None
    # What a cluster loses is said here, in a line, or made good without a word.
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with _connected(Client, address) as client:
            yield client
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _connected(kind: Any, address: str) -> Any:
    try:
        return kind(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({type(error).__name__}); start one first"
        ) from None


def _in_worker(
    registered: Snapshot,
    work: Work,
    index: int,
    config: Config,
    path: Path,
    share: bool,
    tell: Callable[[int], None] | None = None,
) -> tuple[int, Any]:
    """One run's result; why there is none; or that it was left, as `share` says, to another command."""
    try:
        # What a script has registered is not known in another process.
        install(registered)
        if share and is_busy(path):
            return index, _Left.BUSY
        # A cluster's process may have several threads, and torch and Pyro have one state for all of them.
        with _ALONE:
            return index, work(config, path, _now_and_then(tell, config.recipe.steps) if tell else None)
    except (TrainingError, ArithmeticError, ProgramError) as error:
        return index, str(error)
    except WriteError as error:
        return index, error
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a guide is a user's program: whatever it does, the other runs go on
        return index, f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_REASON]


def _now_and_then(tell: Callable[[int], None], steps: int) -> Callable[[int], None]:
    """What tells of some of the steps, and of the last."""
    told = -math.inf

    def on_step(step: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told > _TELLING or step + 1 == steps:
            told = now
            tell(step)

    return on_step
