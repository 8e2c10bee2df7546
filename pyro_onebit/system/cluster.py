"""Tasks on a cluster, whose scheduler and workers are Dask's, and whose workers may die alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from pyro_onebit.errors import InputError
from pyro_onebit.system.processes import Lost

__all__ = ["connected", "on_cluster"]

_Task = tuple[Any, ...]
#: Seconds after which a cluster without workers is given up.
_DESERTED = 30.0


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Within, a client of the scheduler at an address.

    Raises:
        InputError: If Dask is not installed, or no scheduler answers.
    """
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
        try:
            client = Client(address, timeout="10s")
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address!r} ({type(error).__name__}); start one first"
            ) from None
        with client:
            yield client
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def on_cluster(client: Any, function: Callable[..., Any], tasks: Iterable[_Task]) -> Iterator[tuple[_Task, Any]]:
    """Each task and what a function returns for it, as `in_processes`; several processes may be killed by one task.

    Raises:
        InputError: If the scheduler is gone, no worker is left, or one cannot import what a task needs.
    """
    # Not by Dask's executor, which may wait for ever for a result that was lost with its worker.
    from distributed import KilledWorker

    running = {client.submit(function, *task, pure=False): task for task in tasks}
    for future in _as_completed(client, running):
        # What nothing refers to any more a cluster forgets: a result as it is taken, all of them if this ends early.
        task = running.pop(future)
        try:
            result = future.result()
        except KilledWorker:
            result = Lost.KILLED
        except CancelledError:
            raise InputError("the cluster's scheduler is gone; start it and give the same command again") from None
        except ImportError as error:
            raise InputError(f"a worker of the cluster lacks something: {error}; install the same there") from None
        yield task, result


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
