"""A grid's runs spread over processes, here or on a cluster, whatever becomes of the processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from pyro_onebit.display import progress
from pyro_onebit.errors import InputError, ProgramError, TrainingError, WriteError
from pyro_onebit.internals import ProcessKilledError, in_processes
from pyro_onebit.registry import Snapshot, install, snapshot
from pyro_onebit.studies.runs import is_begun, is_busy, run_path
from pyro_onebit.training import Config

T = TypeVar("T")


class _Left(Enum):
    """In place of a result."""

    BUSY = "another command is training it"
    KILLED = "each process that trained it was killed; it may have taken too much memory"


#: What a process is handed: `_in_worker`'s arguments.
_Task = tuple[Snapshot, Callable[[Config, Path], Any], int, Config, Path, bool]
_ALONE = Lock()
#: So many times in a row may processes be killed with no run in them before this is no accident.
_PATIENCE = 3


def check_jobs(jobs: int) -> None:
    """Refuse fewer than one process.

    Raises:
        InputError: If `jobs` is below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")


def run_all(
    work: Callable[[Config, Path], T],
    configs: Sequence[Config],
    out: Path,
    jobs: int,
    *,
    quiet: bool,
    cluster: str | None = None,
) -> Iterator[tuple[int, T | str]]:
    """Do something for each configuration and the directory of its run, in processes; as they end.

    What another command is training at the moment is left to the end, so that two share a grid. A run whose process
    is killed is tried once more, alone, and then given up (on a cluster, when its scheduler does). If a disk is full,
    no other run is begun.

    Arguments:
        work: A function of a module, so that a process can find it.
        configs: The configurations.
        out: The study's directory.
        jobs: Processes, each with one thread; at least 1.
        quiet: Show no progress bar.
        cluster: Address of a Dask scheduler, in place of `jobs`.

    Returns:
        Index and result of each, or why there is none.

    Raises:
        InputError: If there is no such scheduler, or `work` says so of a run.
        WriteError: If something could not be written, once the runs that had begun are as far as they come.
    """
    # The longest runs first, so that no core is left with one of them at the end.
    waiting = sorted(range(len(configs)), key=lambda i: (-configs[i].layers, -configs[i].ndims, i))
    paths = [run_path(out, config) for config in configs]
    full: list[WriteError] = []
    share, idle = True, 0
    registered = snapshot()

    def tasks(indices: Sequence[int]) -> Iterator[_Task]:
        for i in indices:
            if full:
                return
            yield registered, work, i, configs[i], paths[i], share

    with ExitStack() as stack:
        run = _in_processes if cluster is None else partial(_on_cluster, stack.enter_context(_client(cluster)))
        bar = stack.enter_context(progress(quiet=quiet, total=len(configs), unit="run"))
        while waiting and not full:
            suspects: list[int] = []
            for i, result in run(tasks(tuple(waiting)), min(jobs, len(waiting))):
                if isinstance(result, WriteError):
                    full.append(result)
                elif result is _Left.KILLED:
                    suspects += [i] if i is not None else [at for at in waiting if is_begun(paths[at])]
                    idle = 0 if suspects else idle + 1
                elif result is not _Left.BUSY:
                    waiting.remove(i)
                    bar.update()
                    yield i, result
            if idle == _PATIENCE:
                raise InputError(
                    f"processes are killed before they begin a run; there may be too little memory for jobs {jobs}; "
                    "take fewer"
                )
            share = False
            for i in suspects:
                # Alone, and in two processes, for with one it would be this one.
                for _, result in run(tasks([i]), 2):
                    if isinstance(result, WriteError):
                        full.append(result)
                    else:
                        waiting.remove(i)
                        bar.update()
                        yield i, str(result.value) if isinstance(result, _Left) else result
    if full:
        raise full[0]


def _in_processes(tasks: Iterable[_Task], processes: int) -> Iterator[Any]:
    """What `_in_worker` returns, as it ends; of a process that is killed, and with it the others, no index."""
    try:
        yield from in_processes(_in_worker, tasks, processes)
    except ProcessKilledError:
        yield None, _Left.KILLED


def _on_cluster(client: Any, tasks: Iterable[_Task], _: int) -> Iterator[Any]:
    """The same on a cluster, whose scheduler says which run was there when several processes were killed.

    Raises:
        InputError: If the scheduler is gone, or a worker cannot import what a run needs.
    """
    # Neither joblib's Dask backend nor Dask's executor: either may wait for ever for a result that was lost with its
    # worker.
    from distributed import KilledWorker, as_completed

    running = {client.submit(_in_worker, *task, pure=False): task[2] for task in tasks}
    for future in as_completed(tuple(running)):
        # What nothing refers to any more a cluster forgets: a result as it is taken, all of them if this ends early.
        i = running.pop(future)
        try:
            result = future.result()
        except KilledWorker:
            result = i, _Left.KILLED
        except CancelledError:
            raise InputError("the cluster's scheduler is gone; start it and give the same command again") from None
        except ImportError as error:
            raise InputError(f"a worker of the cluster lacks something: {error}; install the same there") from None
        yield result
        if isinstance(result[1], WriteError):
            return  # what is running there ends by itself


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
    registered: Snapshot, work: Callable[[Config, Path], T], index: int, config: Config, path: Path, share: bool
) -> tuple[int, T | str | WriteError | _Left]:
    """One run's result; why there is none; or that it was left, as `share` says, to another command."""
    # What a script has registered is not known in another process.
    install(registered)
    try:
        if share and is_busy(path):
            return index, _Left.BUSY
        # A cluster's process may have several threads, and torch and Pyro have one state for all of them.
        with _ALONE:
            return index, work(config, path)
    except (TrainingError, ArithmeticError, ProgramError) as error:
        return index, str(error)
    except WriteError as error:
        return index, error
    except InputError:
        raise
    except Exception as error:  # a guide is a user's program: whatever it does, the other runs go on
        return index, f"{type(error).__name__}: {' '.join(str(error).split())}"
