"""Processes: results as they end, one that is lost alone, Ctrl-C for the parent alone, none left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyro_onebit import InputError
from pyro_onebit.internals import Lost, in_processes


def do(what: object) -> object:
    match what:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(600)
        case "interrupt":
            raise KeyboardInterrupt
        case "mask":
            return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        case "refuse":
            raise InputError("what the function raises")
        case int(number):
            return number * number
    return None


def test_each_is_told_apart() -> None:
    tasks = [*range(3), "die", "sleep", "interrupt", "mask"]
    found = {task: result for (task,), result in in_processes(do, [(task,) for task in tasks], 2, limit=5.0)}
    lost = {"die": Lost.KILLED, "sleep": Lost.LATE, "interrupt": Lost.INTERRUPTED}
    assert found == {0: 0, 1: 1, 2: 4, **lost, "mask": True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_a_function_raises_is_raised() -> None:
    with pytest.raises(InputError, match="what the function raises"):
        list(in_processes(do, [("refuse",)], 1))


def test_none_is_left_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Nor is one in the middle of a task, and what reads the parent's output comes to its end."""
    script = """
import os, sys, time
from pyro_onebit.internals import in_processes

def work(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

list(in_processes(work, [(sys.argv[1],)], 1))
"""
    noted = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script, str(noted)], stdout=subprocess.PIPE)
    while not (noted.exists() and noted.read_text()):
        time.sleep(0.05)
    parent.kill()
    assert parent.communicate(timeout=60) == (b"", None)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{noted.read_text()}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{noted.read_text()}").exists()
