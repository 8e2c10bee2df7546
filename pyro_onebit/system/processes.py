"""Processes that each do one task after another, are gone when this one is, and may die or be late alone."""

from __future__ import annotations

import importlib
import math
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

from pyro_onebit.errors import InputError
from pyro_onebit.system.memory import uncollected

_Task = tuple[Any, ...]
_Hear = Callable[[_Task, Any], None]
#: One thread each: several processes, each with all the cores' threads, are many times slower.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
#: Seconds after which, at the latest, it is checked again whether a process still exists.
_LOOK = 1.0


class Lost(Enum):
    """In place of a task's result."""

    #: Its process is gone.
    KILLED = "killed"
    #: It took longer than it may.
    LATE = "late"
    #: It raised `KeyboardInterrupt` itself: no Ctrl-C comes to where it ran.
    INTERRUPTED = "interrupted"


#: What `imported_ahead` has begun.
_AHEAD: list[_Nursery] = []


@contextmanager
def imported_ahead(*modules: str) -> Iterator[None]:
    """Within, the processes of `in_processes` are forked from one that begins to import now, while this one does.

    Arguments:
        modules: What it imports.
    """
    nursery = _Nursery(*modules)
    _AHEAD.append(nursery)
    try:
        yield
    finally:
        _AHEAD.remove(nursery)
        nursery.end()


@dataclass(frozen=True)
class _News:
    """What a task says while it is done."""

    content: Any


def in_processes(
    function: Callable[..., Any],
    tasks: Iterable[_Task],
    processes: int,
    limit: float | None = None,
    hear: _Hear | None = None,
) -> Iterator[tuple[_Task, Any]]:
    """Each task and what a function returns for it, or why it is lost, as they end.

    The processes are forked from one that has imported the function's module, and nothing else is done in that one:
    however many they are, what takes long to import is imported once, and in memory once.

    Relied on: cloudpickle takes functions and classes of a script or a notebook along; a pipe's end is seen when the
    process at its other end is gone, however it went; to import torch starts no thread, so that it can be forked.

    Arguments:
        function: The function; what it raises is raised here.
        tasks: Its arguments; the next ones are taken when a process is free.
        processes: Their number.
        limit: Seconds that a task may take.
        hear: Called with a task and what it says while it is done; then the function has a last argument, which it
            calls to say it: at most a few times per second, since nobody may be reading.

    Raises:
        InputError: If processes end before they have begun.
    """
    upcoming = iter(tasks)
    workers: list[_Worker] = []
    own = None if _AHEAD else _Nursery(function.__module__)
    nursery = own or _AHEAD[-1]
    try:
        workers += [_Worker(nursery) for _ in range(processes)]
        while workers:
            wait([worker.pipe for worker in workers], _LOOK if limit is None else min(_LOOK, limit))
            for i, worker in reversed(list(enumerate(workers))):
                if not (result := worker.look(limit, hear)):
                    continue
                task, lost = worker.task, isinstance(result[0], Lost)
                if lost:
                    worker.end()
                    if task is None:
                        raise InputError(
                            f"processes end before they begin; there may be too little memory for {processes} of them"
                        )
                    workers[i] = _Worker(nursery)
                elif (following := next(upcoming, None)) is None:
                    worker.end()
                    workers.pop(i)
                else:
                    worker.give(function, following, hear is not None)
                if task is not None:
                    yield task, *result
    finally:
        for worker in workers:
            worker.end()
        if own:
            own.end()


#: What the process runs from which the others are forked.
_CODE = """
import sys
sys.path[:] = {path!r}
from {module} import fork_on_demand
fork_on_demand({control}, {imported!r})
"""


class _Nursery:
    """The process from which the others are forked, seen from here. It ends when this one does.

    Arguments:
        modules: What it imports first.
    """

    def __init__(self, *modules: str) -> None:
        self._control, theirs = socket.socketpair()
        code = _CODE.format(path=sys.path, module=__name__, control=theirs.fileno(), imported=modules)
        # A Ctrl-C is for this process alone, which then ends the others: what is blocked here is blocked there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=_descriptor(sys.stdout),
                stderr=_descriptor(sys.stderr),
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_ONE_THREAD},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def fork(self) -> Connection:
        """A pipe to a process that is forked as soon as all is imported; if none can be, the pipe is closed."""
        pipe, theirs = Pipe()
        with theirs, suppress(OSError):
            socket.send_fds(self._control, [b" "], [theirs.fileno()])
        return pipe

    def end(self) -> None:
        """End it; those that were forked from it go on."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def fork_on_demand(control: int, imported: tuple[str, ...]) -> NoReturn:
    """What the nursery does: it imports, and forks a process for each pipe that it is handed."""
    with suppress(Exception), uncollected():  # the process that needs it finds out
        for module in imported:
            importlib.import_module(module)
    with socket.socket(fileno=control) as requests:
        while True:
            _, pipes, *_ = socket.recv_fds(requests, 1, 1)
            if not pipes:  # the other end is gone
                os._exit(0)
            if os.fork() == 0:
                break
            os.close(pipes[0])
    serve(pipes[0])


class _Worker:
    """A process, as seen from this one."""

    def __init__(self, nursery: _Nursery) -> None:
        #: What it works at; None: it is starting, and sends its process's number when it is ready.
        self.task: _Task | None = None
        self._since, self._id = math.inf, 0
        self.pipe = nursery.fork()

    def give(self, function: Callable[..., Any], task: _Task, heard: bool) -> None:
        """Hand it a task, and say whether it is heard meanwhile."""
        import cloudpickle

        self.task, self._since = task, time.monotonic()
        with suppress(OSError):  # it is gone, as will be seen
            self.pipe.send_bytes(cloudpickle.dumps((function, task, heard)))

    def look(self, limit: float | None, hear: _Hear | None) -> tuple[Any] | None:
        """What came of what it was at, once it has ended, or it itself has; what it says before is heard."""
        try:
            while self.pipe.poll():
                result, error = pickle.loads(self.pipe.recv_bytes())
                if isinstance(result, _News):
                    if hear and self.task:
                        hear(self.task, result.content)
                    continue
                if error is not None:
                    raise error
                if self.task is None:
                    self._id = result
                return (result,)
        except (EOFError, ConnectionError):
            return (Lost.KILLED,)
        late = limit is not None and time.monotonic() - self._since > limit
        return (Lost.LATE,) if late else None

    def end(self) -> None:
        """End it, whatever it is doing."""
        with suppress(EOFError, OSError):
            # What its nursery forked it does not forget while it lives: no other process has its number.
            if self._id:
                os.kill(self._id, signal.SIGKILL)
                while True:
                    self.pipe.recv_bytes()
        self.pipe.close()


def _descriptor(stream: Any) -> int | None:
    """Where a stream leads, which need not be what it led to when Python began."""
    with suppress(OSError, ValueError, AttributeError):
        return int(stream.fileno())
    return None


def serve(pipe: int) -> NoReturn:
    """What a forked process does: one task after another."""
    import cloudpickle

    # A program's own processes must not hold it open.
    os.set_inheritable(pipe, False)
    # When the process at the pipe's other end is gone, this one ends, also in the middle of a task.
    other_end = select.poll()
    other_end.register(pipe, 0)
    Thread(target=lambda: other_end.poll() and os._exit(1), daemon=True).start()
    connection = Connection(pipe)
    with suppress(OSError):  # where memory ends, the kernel is to end this process, not the one that waits for it
        Path("/proc/self/oom_score_adj").write_text("1000")

    def tell(news: Any) -> None:
        with suppress(OSError):  # the other end is gone, and this process will be
            connection.send_bytes(cloudpickle.dumps((_News(news), None)))

    content: tuple[Any, BaseException | None] = os.getpid(), None
    while True:
        try:
            connection.send_bytes(cloudpickle.dumps(content))
            given = connection.recv_bytes()
        except (EOFError, OSError):  # the other end is gone
            os._exit(1)
        try:
            function, task, heard = cloudpickle.loads(given)
            content = function(*task, *([tell] if heard else [])), None
        except KeyboardInterrupt:
            content = Lost.INTERRUPTED, None
        except BaseException as error:  # which the other end raises
            content = None, error
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
