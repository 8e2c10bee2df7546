"""Processes: results as they end, one that is lost alone, Ctrl-C for the parent alone, none left behind."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_onebit.errors import InputError  # with which no process imports all the package
from pyro_onebit.system import Lost, imported_ahead, in_processes


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
    found = {task: result for (task,), result in in_processes(do, [(task,) for task in tasks], 2, limit=2.0)}
    lost = {"die": Lost.KILLED, "sleep": Lost.LATE, "interrupt": Lost.INTERRUPTED}
    assert found == {0: 0, 1: 1, 2: 4, **lost, "mask": True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def count(up_to: float, tell: Callable[[int], None]) -> float:
    step = 0
    while step < up_to:
        step += 1
        tell(step)
        time.sleep(0.01)
    return up_to


def test_a_task_is_heard_while_it_is_done() -> None:
    heard: dict[float, list[int]] = {3: [], 5: [], math.inf: []}
    tasks = [(up_to,) for up_to in heard]
    found = dict(in_processes(count, tasks, 2, limit=2.0, hear=lambda task, step: heard[task[0]].append(step)))
    # One that talks on and on is late nevertheless.
    assert found == {(3,): 3, (5,): 5, (math.inf,): Lost.LATE}
    assert (heard[3], heard[5]) == ([1, 2, 3], [1, 2, 3, 4, 5])
    assert len(heard[math.inf]) > 5


def test_what_a_function_raises_is_raised() -> None:
    with pytest.raises(InputError, match="what the function raises"):
        list(in_processes(do, [("refuse",)], 1))


def test_none_is_left_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Nor is one in the middle of a task, and what reads the parent's output comes to its end."""
    script = """
import os, sys, time
from pyro_onebit.system import in_processes

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


def parents(_: int) -> tuple[int, bool]:
    return os.getppid(), "wave" in sys.modules


def test_processes_are_forked_from_one_that_has_imported() -> None:
    with imported_ahead("wave"):
        found = [list(in_processes(parents, [(i,) for i in range(4)], 2)) for _ in range(2)]
    results = {result for part in found for _, result in part}
    assert len(results) == 1
    [(nursery, has_imported)] = results
    assert has_imported
    assert nursery != os.getpid()
    # It is gone, and has been waited for.
    assert not Path(f"/proc/{nursery}").exists()
    [(_, (another, has_imported))] = in_processes(parents, [(0,)], 1)
    assert another != nursery
    assert not has_imported


def test_a_nursery_that_is_killed_is_no_endless_wait() -> None:
    def kill_it(_: int) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="before they begin"):
        list(in_processes(kill_it, [(0,)], 1))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_python_ends_leaves_the_exit_code(name: str) -> None:
    code = (
        "import atexit, os, signal, sys\n"
        "from pyro_onebit.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), signal.{name})\n"
        "sys.exit(main(['--version']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("pyro-onebit")
