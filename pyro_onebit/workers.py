"""A grid's runs spread over processes, here or on a cluster, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing.resource_tracker
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from joblib.externals import loky
from joblib.externals.loky.process_executor import TerminatedWorkerError
from torch import nn
from tqdm import tqdm

from pyro_onebit.config import Config
from pyro_onebit.data import InputError
from pyro_onebit.files import WriteError
from pyro_onebit.guides import GUIDES
from pyro_onebit.matching import GuideError
from pyro_onebit.runs import is_begun, is_busy, run_path
from pyro_onebit.training import TrainingError

__all__ = ["check_jobs", "spread"]

T = TypeVar("T")


class _Left(Enum):
    """In place of a result."""

    BUSY = "another command is training the run"


#: So many times in a row may processes be killed with no run in them before this is no accident.
_PATIENCE = 3


def check_jobs(jobs: int) -> None:
    """Refuse fewer than one process.

    Raises:
        InputError: If `jobs` is below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")


def spread(
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
    is killed is tried once more, alone, and then given up. If a disk is full, no other run is begun.

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

    def tasks(indices: Sequence[int]) -> Iterator[Any]:
        for i in indices:
            if full:
                return
            yield delayed(_in_worker)(GUIDES, work, i, configs[i], paths[i], share)

    with ExitStack() as stack:
        client = None if cluster is None else stack.enter_context(_client(cluster))
        bar = stack.enter_context(tqdm(total=len(configs), disable=True if quiet else None, unit="run"))
        while waiting and not full:
            try:
                for i, result in _run(tasks(tuple(waiting)), min(jobs, len(waiting)), client):
                    if isinstance(result, WriteError):
                        full.append(result)
                    elif result is not _Left.BUSY:
                        waiting.remove(i)
                        bar.update()
                        yield i, result
                share = False
            except _killed(client):
                suspects = [i for i in waiting if is_begun(paths[i])]
                idle = 0 if suspects else idle + 1
                if idle == _PATIENCE:
                    raise InputError(
                        "processes are killed before they begin a run; there may be too little memory for jobs "
                        f"{jobs}; take fewer"
                    ) from None
                share = False
                for i in suspects:
                    waiting.remove(i)
                    try:
                        # Two processes, for with one it would be this one.
                        [(_, result)] = _run(tasks([i]), 2, client)
                    except _killed(client):
                        result = "its process was killed, twice; it may have taken too much memory"
                    bar.update()
                    yield i, result
    if full:
        raise full[0]


def _run(tasks: Iterable[Any], processes: int, client: Any) -> Iterator[Any]:
    settings: dict[str, Any] = {"batch_size": 1, "return_as": "generator_unordered"}
    if client is not None:
        with parallel_config(backend="dask", client=client):
            return Parallel(n_jobs=-1, **settings)(tasks)
    for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
        tracker.ensure_running()  # which else would unblock what is blocked here
    # Processes inherit this: a Ctrl-C is for this one alone, which then ends them without a word.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return Parallel(n_jobs=processes, **settings)(tasks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a cluster needs Dask: pip install 'pyro-onebit[cluster]'") from None
    try:
        return Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({type(error).__name__}); start one first"
        ) from None


def _killed(client: Any) -> tuple[type[Exception], ...]:
    """What says that a process is gone, here or on a cluster."""
    if client is None:
        return (TerminatedWorkerError,)
    from distributed import KilledWorker

    return (KilledWorker,)


def _in_worker(
    guides: dict[str, type[nn.Module]],
    work: Callable[[Config, Path], T],
    index: int,
    config: Config,
    path: Path,
    share: bool,
) -> tuple[int, T | str | WriteError | _Left]:
    """One run's result; why there is none; or that it was left, as `share` says, to another command."""
    # Guides that a script has registered are not known in another process.
    for name, guide in guides.items():
        GUIDES.setdefault(name, guide)
    try:
        if share and is_busy(path):
            return index, _Left.BUSY
        return index, work(config, path)
    except (TrainingError, ArithmeticError, GuideError) as error:
        return index, str(error)
    except WriteError as error:
        return index, error
    except InputError:
        raise
    except Exception as error:  # a guide is a user's program: whatever it does, the other runs go on
        return index, f"{type(error).__name__}: {' '.join(str(error).split())}"
