"""joblib and loky: results as they end, a killed process told, Ctrl-C for the parent alone."""

import os
import signal

import pytest

from pyro_onebit.internals import ProcessKilledError, in_processes


def square(number: int) -> int:
    return number * number


def blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_tasks_result() -> None:
    assert sorted(in_processes(square, [(i,) for i in range(5)], 2)) == [0, 1, 4, 9, 16]


def test_an_interrupt_is_blocked_there_and_not_here() -> None:
    assert list(in_processes(blocked, [(), ()], 2)) == [True, True]
    assert not blocked()


def test_a_killed_process_is_told() -> None:
    with pytest.raises(ProcessKilledError):
        list(in_processes(die, [(), ()], 2))
