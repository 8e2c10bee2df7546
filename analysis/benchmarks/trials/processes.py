"""Processes that are killed, stopped or asked to end, and programs that do what no program should."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trials.common import Ended, Row, command, environment, figures_of, fresh, json_rows, processes_of, row_of, shell

#: Seconds in which a killed command's processes must be gone.
_GONE = 10.0


def study(args: argparse.Namespace, out: Path, *more: str) -> list[str]:
    """The command that is disturbed: two-layer runs, in two processes."""
    grid = ["--layers", "2", "--ndims", "3", "--seeds", "0", "1", "--steps", str(args.steps)]
    return command("study", *grid, "--jobs", "2", "--quiet", "--out", out, *more)


def _not_ignored() -> None:
    """What is begun in a shell's background, or by nohup, ignores some signals, and so would its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Begun:
    """A command in a session of its own, its output in a pipe as of ``onebit study | tee``."""

    def __init__(self, arguments: list[str], **changes: str) -> None:
        self.process = subprocess.Popen(
            arguments,
            start_new_session=True,
            preexec_fn=_not_ignored,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, reached: Callable[[], bool], delay: float = 0.0) -> bool:
        """Wait for something, and a little longer; whether the command still ran then."""
        while self.process.poll() is None and not reached():
            time.sleep(0.002)
        time.sleep(delay)
        return self.process.poll() is None

    def wait(self, timeout: float | None = None) -> Ended:
        """How it ends."""
        out, err = self.process.communicate(timeout=timeout)
        return Ended(self.process.returncode, out, err)

    def send(self, number: int) -> tuple[Ended, bool]:
        """Send the first process a signal, if it runs, and wait; how it ended, and whether it left something behind."""
        self.process.send_signal(number)
        try:
            ended = self.wait(_GONE)
        except subprocess.TimeoutExpired:  # somebody holds the pipe open
            self.end()
            return self.wait(), True
        deadline = time.monotonic() + _GONE
        while (left := processes_of(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.end()
        return ended, bool(left)

    def end(self) -> None:
        """Kill what is left of the session."""
        for number in processes_of(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def halfway(arguments: list[str], out: Path, **changes: str) -> Begun:
    """A study's command that has been begun, half a second after the states of its two runs are there."""
    begun = Begun(arguments, **changes)
    begun.until(lambda: len(states_of(out)) == 2, 0.5)
    return begun


def _finished(out: Path) -> int:
    return len(list(out.glob("runs/*/metrics.json")))


def states_of(out: Path) -> list[int]:
    """The steps that states have come to."""
    steps = []
    for path in out.glob("runs/*/progress.safetensors"):
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
            steps.append(json.loads(file.metadata()["state"])["step"])
    return steps


def undisturbed(args: argparse.Namespace) -> Any:
    """What comes out if nothing happens."""
    out = args.out / "undisturbed"
    if not (out / "report.html").exists():
        subprocess.run(study(args, fresh(out)), check=True, env=environment(), stdout=subprocess.DEVNULL)
    return figures_of(out)


def completed(args: argparse.Namespace, out: Path, expected: Any) -> tuple[Ended, bool]:
    """The same command once more, to its end; whether the same came out."""
    ended = Begun(study(args, out)).wait()
    return ended, came_out(ended, out, expected) and (out / "report.html").exists()


def came_out(ended: Ended, out: Path, expected: Any) -> bool:
    """Whether a study ended well, with what was expected of it."""
    return ended.code == 0 and figures_of(out) == expected


def kills(args: argparse.Namespace) -> Iterator[Row]:
    """SIGKILL of the first process, in each phase of a study in turn; then its end, which must be as ever."""
    expected, chance = undisturbed(args), random.Random(args.seed)
    phases: dict[str, Callable[[Path], bool]] = {
        "training": lambda out: bool(states_of(out)),
        "judging": lambda out: args.steps in states_of(out),
        "table writing": lambda out: _finished(out) == 2,
        "report writing": lambda out: (out / "results.csv").exists() and bool(list(out.glob("figures/*.png"))),
    }
    delays = {"training": 2.0, "judging": 0.3, "table writing": 0.05, "report writing": 0.3}
    for trial in range(args.kills // len(phases)):
        out = fresh(args.out / f"killed{trial}")
        rows = []
        for name, reached in phases.items():
            shutil.rmtree(out / "figures", ignore_errors=True)
            begun = Begun(study(args, out))
            alive = begun.until(partial(reached, out), chance.uniform(0.0, delays[name]))
            ended, orphan = begun.send(signal.SIGKILL) if alive else (Ended(0, "", "Traceback: it had ended"), False)
            rows.append((f"a kill while {name}", ended, orphan))
        ended, same = completed(args, out, expected)
        for what, own, orphan in rows:
            yield row_of("kills", what, own, right=own.code == -signal.SIGKILL, orphan=orphan)
        yield row_of("kills", "the same command afterwards", ended, right=same)


def signals(args: argparse.Namespace) -> Iterator[Row]:
    """Each signal to the first process alone, at moments spread over a study; then its end."""
    expected, chance = undisturbed(args), random.Random(args.seed)
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    for number, code in codes.items():
        out = fresh(args.out / number.name)
        for trial in range(args.signals):
            begun = Begun(study(args, out))
            # From when its processes are there, to the middle of training and, in the end, beyond.
            began = lambda: len(processes_of(begun.process.pid)) > 2  # noqa: B023, E731
            begun.until(began, chance.uniform(0.0, 6.0 * trial / args.signals))
            ended, orphan = begun.send(number)
            if ended.code == 0:
                out = fresh(args.out / number.name)  # it was through
            yield row_of("signals", number.name, ended, right=ended.code in (code, 0), orphan=orphan)
        ended, same = completed(args, out, expected)
        yield row_of("signals", f"the same command after {number.name}", ended, right=same)


#: Guides that do what no guide should, and what their failure must say; None: they do no harm.
GUIDES = {
    "exits": ("sys.exit(3)", "SystemExit: 3"),
    "raises": ("raise BaseException('odd')", "BaseException: odd"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "leaves": ("os._exit(3)", "was killed"),
    "crashes": ("ctypes.string_at(0)", "was killed"),
    "sleeps": ("time.sleep(3600)", "did not end within"),
    "hoards": ("resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); bytearray(2**33)", "MemoryError"),
    "prints": ("print('loud'); os.write(1, b'louder'); sys.__stdout__.write('loudest')", None),
    "babbles": ("raise ValueError('x' * 100000)", "ValueError: xxx"),
    "forks": ("subprocess.Popen(['sleep', '1'])", None),
}
SCRIPT = """
import sys
from pyro_onebit import GaussianGuide, register_guide
from pyro_onebit.cli import main

def hostile(name, source):
    class Hostile(GaussianGuide):
        def forward(self, x):
            if not getattr(self, "done", False):
                self.done = True
                exec("import ctypes, os, resource, subprocess, sys, time; " + source)
            return super().forward(x)
    Hostile.__qualname__ = name
    register_guide(name)(Hostile)

for name, source in {sources!r}.items():
    hostile(name, source)
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def guides(args: argparse.Namespace) -> Iterator[Row]:
    """Hostile guides beside a good one: each has its row or its reason, and standard output is JSON."""
    place = fresh(args.out / "guides").resolve()
    script = place / "hostile.py"
    script.write_text(SCRIPT.format(sources={name: source for name, (source, _) in GUIDES.items()}))
    grid = "--layers 1 --ndims 2 --steps 3 --jobs 2 --timeout 15 --json"
    names = " ".join(["gaussian", *GUIDES])
    ended = shell(f'"{sys.executable}" hostile.py study {grid} --guides {names} --out study', place)
    content = json_rows(ended) or {"rows": [], "failures": {}}
    yield row_of("guides", "a study with all of them", ended, right=ended.code == 1)
    finished = {row["guide"] for row in content["rows"]}
    for name, (_, reason) in {"gaussian": ("", None), **GUIDES}.items():
        said = " ".join(why for run, why in content["failures"].items() if f"-{name}-" in run)
        right = name in finished if reason is None else reason in said
        yield row_of("guides", f"a guide that {name}", Ended(0, said, ""), right=right)
    for name in ("exits", "raises", "interrupts", "prints", "babbles"):
        ended = shell(
            f'"{sys.executable}" hostile.py train --ndims 2 --steps 3 --json --guide {name} --out {name}', place
        )
        right = (json_rows(ended) is not None) if name == "prints" else ended.code in (1, 2, 130)
        yield row_of("guides", f"train, a guide that {name}", ended, right=right)


def odd(args: argparse.Namespace) -> Iterator[Row]:
    """What else may happen to a study."""
    expected, place = undisturbed(args), fresh(args.out / "odd")
    for who in ("the command", "all processes"):
        out = fresh(place / "stopped")
        begun = Begun(study(args, out))
        begun.until(lambda: bool(states_of(out)), 0.5)  # noqa: B023
        stopped = processes_of(begun.process.pid) if who == "all processes" else [begun.process.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in stopped:
                os.kill(pid, number)
            time.sleep(3.0)
        ended = begun.wait()
        yield row_of("odd", f"{who} stopped and continued", ended, right=came_out(ended, out, expected))

    out = fresh(place / "shared")
    both = [Begun(study(args, out)) for _ in range(2)]
    both[0].until(lambda: bool(states_of(out)), 0.5)
    _, orphan = both[0].send(signal.SIGKILL)
    ended = both[1].wait()
    right = came_out(ended, out, expected)
    yield row_of("odd", "one of two commands on one directory killed", ended, right=right, orphan=orphan)

    for name, happens in {
        "a run's state deleted": lambda out: [path.unlink() for path in out.glob("runs/*/progress.safetensors")],
        "a run's configuration deleted": lambda out: [path.unlink() for path in out.glob("runs/*/config.json")],
        "all runs deleted": lambda out: shutil.rmtree(out / "runs"),
        "a run made a file": lambda out: [_as_file(path) for path in itertools.islice(out.glob("runs/*"), 1)],
    }.items():
        out = fresh(place / "deleted")
        begun = halfway(study(args, out), out)
        happens(out)
        ended = begun.wait()
        yield row_of("odd", name, ended, right=ended.code in (0, 1, 2))
        for path in out.glob("runs/*"):
            if path.is_file():
                path.unlink()
        ended, same = completed(args, out, expected)
        yield row_of("odd", f"the same command after: {name}", ended, right=same)
    yield from _deserted(args, place)


def _as_file(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.write_bytes(b"")


def _deserted(args: argparse.Namespace, place: Path) -> Iterator[Row]:
    """A cluster whose only worker goes."""
    file, out = place / "scheduler.json", fresh(place / "cluster")
    common: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    python = [sys.executable, "-m"]
    scheduler = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [*python, "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    begun = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **common)]
    try:
        while not file.exists():
            time.sleep(0.1)
        begun.append(subprocess.Popen([*worker, "--scheduler-file", str(file)], **common))
        asked = Begun(study(args, out, "--cluster", json.loads(file.read_text())["address"]))
        asked.until(lambda: bool(states_of(out)))
        begun[1].kill()
        ended = asked.wait(300)
        right = ended.code == 2 and "no worker left" in ended.err
        yield row_of("odd", "a cluster whose last worker goes", ended, right=right)
    finally:
        for process in begun:
            process.kill()
            process.wait()
