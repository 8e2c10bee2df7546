"""Signals that ask this process to end."""

from __future__ import annotations

import atexit
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


class StoppedError(KeyboardInterrupt):
    """This process was asked to end, by another signal than Ctrl-C's.

    Arguments:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `StoppedError`, so that work is left as by Ctrl-C, unless they are ignored."""
    if current_thread() is not main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    numbers = [own for own in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(own) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def quick_exit() -> None:
    """From when Python ends, no signal changes the exit code of what is done, and nothing is searched for garbage.

    To search what torch has brought takes half a second, and the system takes it all back anyway.
    """
    atexit.unregister(_ending)
    atexit.register(_ending)  # what is registered last is called first


def _ending() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
