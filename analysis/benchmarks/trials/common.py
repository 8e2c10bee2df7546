"""What the trials share: how a command is run, and what is said of it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_onebit import Config, build, fit, save_run
from pyro_onebit.cli import main

#: One attempt: its kind, what was tried, what happened, and which of the four faults it showed.
Row = dict[str, Any]
Section = Callable[[argparse.Namespace], Iterable[Row]]
FAULTS = ("traceback", "wrong", "lost", "orphan")
#: An error's line, its prefix and the places that it names.
_LONGEST = 330


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def has_traceback(self) -> bool:
        """Whether something other than lines for a reader came out."""
        return "Traceback" in self.err or any(len(line) > _LONGEST for line in self.err.splitlines())


def row_of(section: str, what: str, ended: Ended, *, right: bool, lost: bool = False, orphan: bool = False) -> Row:
    """An attempt's row; `right`: whether what came out is what should."""
    last = (ended.err.strip().splitlines() or ended.out.strip().splitlines() or [""])[-1]
    return {
        "section": section,
        "what": what,
        "code": ended.code,
        "said": last[:120],
        "traceback": ended.has_traceback,
        "wrong": not right,
        "lost": lost,
        "orphan": orphan,
    }


def inside(*arguments: str | Path) -> Ended:
    """A command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except BaseException:
            code = -1
            err.write(traceback.format_exc())
    return Ended(code, out.getvalue(), err.getvalue())


def command(*arguments: str | Path) -> list[str]:
    """A command for a process of its own."""
    return [sys.executable, "-m", "pyro_onebit", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes, and one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


#: Of one-layer programs, a few steps: what each kind of attempt needs of a command, its directory to follow.
TRAIN = ("train", "--ndims", "2", "--steps", "3", "--quiet", "--out")
STUDY = ("study", "--ndims", "2", "--layers", "1", "--steps", "3", "--jobs", "1", "--quiet", "--out")


def shell(line: str, place: Path, **changes: str) -> Ended:
    """A line of bash, in which ``onebit`` is the command, in a directory."""
    prepared = f'onebit() {{ "{sys.executable}" -m pyro_onebit "$@"; }}; {line}'
    ended = subprocess.run(
        ["bash", "-c", prepared], cwd=place, env=environment(**changes), capture_output=True, timeout=600, check=False
    )
    return Ended(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))


def fresh(place: Path) -> Path:
    """An empty directory."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def small_run(place: Path, **changes: Any) -> Path:
    """A directory with a run of a few steps."""
    config = Config(**{"ndims": 3, "steps": 5, **changes})
    save_run(fit(*build(config), config), place)
    return place


def figures_of(out: Path) -> tuple[list[str], dict[str, bytes]]:
    """What must be the same in the end: a study's rows without their seconds, and each run's history."""
    lines = pd.read_csv(out / "results.csv", dtype=str).drop(columns="seconds").to_csv(index=False).splitlines()
    histories = sorted(out.glob("runs/*/history.csv"))
    return lines, {str(path.relative_to(out)): path.read_bytes() for path in histories}


def processes_of(group: int) -> list[int]:
    """The processes of a session, whoever their parent is now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """A row for each section: its attempts, and how many showed each fault."""
    table = pd.DataFrame(rows)
    summed = table.groupby("section", sort=False).agg(
        tried=("what", "size"), kinds=("what", "nunique"), **{fault: (fault, "sum") for fault in FAULTS}
    )
    return summed.reset_index().to_dict("records")


def answer(rows: Sequence[Row]) -> str:
    """What came of it, in a sentence."""
    counts = {fault: sum(bool(row[fault]) for row in rows) for fault in FAULTS}
    names = {"traceback": "tracebacks", "wrong": "wrong results", "lost": "lost files", "orphan": "orphans"}
    return f"{len(rows)} attempts: " + ", ".join(f"{names[fault]} {count}" for fault, count in counts.items()) + "."


def json_rows(ended: Ended) -> dict[str, Any] | None:
    """The one JSON object that a command printed; None if it printed something else."""
    try:
        content: dict[str, Any] = json.loads(ended.out)
    except ValueError:
        return None
    return content
