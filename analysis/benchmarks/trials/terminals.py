"""Terminals, environments and names: whatever a command is run in."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trials import common
from trials.common import Row, fresh, row_of, shell, small_run

STUDY, TRAIN = (" ".join(["onebit", *arguments]) for arguments in (common.STUDY, common.TRAIN))
#: A name, a line of bash, and the exit codes that it may have.
LINES: tuple[tuple[str, str, set[int]], ...] = (
    ("--help | head", "onebit --help | head -n 1; exit ${PIPESTATUS[0]}", {0}),
    ("train --help | true", "onebit train --help | true; exit ${PIPESTATUS[0]}", {0}),
    ("evaluate | head", "onebit evaluate run | head -n 1; exit ${PIPESTATUS[0]}", {0}),
    ("evaluate --json | true", "onebit evaluate run --json | true; exit ${PIPESTATUS[0]}", {0}),
    ("evaluate > /dev/full", "onebit evaluate run > /dev/full", {2}),
    ("--help > /dev/full", "onebit --help > /dev/full", {0, 2}),
    ("study > /dev/full", f"{STUDY} full > /dev/full; code=$?; test -s full/report.html && exit $code", {2}),
    ("stderr to /dev/full", "onebit evaluate nothing 2> /dev/full", {2}),
    ("closed stdout", "onebit evaluate run >&-", {0, 2}),
    ("closed stderr", f"{STUDY} closed 2>&-; code=$?; test -s closed/report.html && exit $code", {0}),
    (
        "closed stdin, stdout, stderr",
        f"{STUDY} all <&- >&- 2>&-; code=$?; test -s all/report.html && exit $code",
        {0, 2},
    ),
    ("latin-1", f"PYTHONIOENCODING=latin-1 {STUDY} latin", {0}),
    ("ASCII", f"PYTHONIOENCODING=ascii {STUDY} ascii", {0}),
    ("POSIX locale", f"LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {STUDY} posix", {0}),
    ("a name that is not UTF-8", f"{STUDY} $'n\\xff'", {0}),
    ("a name that is not UTF-8, JSON", f"{STUDY} $'n\\xff' --json", {0}),
    ("a name of 300 characters", f"{TRAIN} $(printf 'a%.0s' {{1..300}})", {2}),
    ("a name of 255 characters", f"{TRAIN} $(printf 'a%.0s' {{1..255}})", {0}),
    ("a file of 255 characters", "onebit encode --run run file $(printf 'b%.0s' {1..255}) --quiet", {0}),
    ("a name with a line break", f"{TRAIN} $'a\\nb/\\xfe'; {TRAIN} $'a\\nb/\\xfe' --seed 1", {2}),
    ("a notebook's backend", "MPLBACKEND=module://matplotlib_inline.backend_inline onebit --help", {0}),
    ("a notebook's backend, study", f"MPLBACKEND=module://matplotlib_inline.backend_inline {STUDY} inline", {0}),
    ("a backend that is none", f"MPLBACKEND=nonsense {STUDY} backend", {0}),
    ("text.usetex", f"MPLCONFIGDIR=$PWD/tex {STUDY} usetex; code=$?; test -s usetex/report.html && exit $code", {0}),
    ("a matplotlibrc that is damaged", f"MPLCONFIGDIR=$PWD/odd {STUDY} odd_rc", {0}),
    ("no home", f"HOME=/nonexistent XDG_CACHE_HOME=/nonexistent {STUDY} homeless", {0}),
    ("no TMPDIR", f"TMPDIR=/nonexistent {TRAIN} tmpless && test -s tmpless/posterior.nc", {0}),
    ("a full TMPDIR", f"TMPDIR=$PWD/small {TRAIN} fulltmp && test -s fulltmp/posterior.nc", {0}),
    ("a full TMPDIR, study", f"TMPDIR=$PWD/small {STUDY} fullstudy", {0}),
    ("a full disk", f"{TRAIN} small/run", {2}),
    ("a read-only disk", f"{TRAIN} /proc/run", {2}),
    ("a file for a directory", f"{TRAIN} file", {2}),
    ("a file size limit", f"ulimit -f 1; {TRAIN} limited", {2}),
    ("few open files", f"ulimit -n 24; {TRAIN} few", {0, 2}),
    ("no terminal size", f"COLUMNS=0 LINES=0 TERM=dumb {STUDY} dumb", {0}),
    ("warnings are errors", f"PYTHONWARNINGS=error::UserWarning {STUDY} warned", {0}),
    (
        "optimised Python",
        f"PYTHONOPTIMIZE=1 {STUDY} optimised; code=$?; test -s optimised/report.html && exit $code",
        {0},
    ),
)


def terminals(args: argparse.Namespace) -> Iterator[Row]:
    """Each line in a directory with a run, a file, odd matplotlibrcs and, where it may be mounted, a full disk."""
    place = fresh(args.out / "terminals").resolve()
    small_run(place / "run")
    (place / "file").write_bytes(b"content")
    for name, content in (("tex", "text.usetex: True\nfont.family: nonsense\n"), ("odd", "savefig.dpi: many\n]]\n")):
        (place / name).mkdir()
        (place / name / "matplotlibrc").write_text(content)
    mounted = _mount_full(place / "small")
    try:
        for name, line, codes in LINES:
            if "small" in line and not mounted:
                continue
            ended = shell(line, place)
            yield row_of("terminals", name, ended, right=ended.code in codes)
    finally:
        if mounted:
            subprocess.run(["umount", place / "small"], check=True)
    yield _without_locks(place)


def _mount_full(place: Path) -> bool:
    """Mount a file system without room, where that is allowed."""
    place.mkdir()
    arguments = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(arguments, capture_output=True, check=False).returncode:
        return False
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
    return True


def _without_locks(place: Path) -> Row:
    """A file system that has no locks, as some network file systems have none."""
    script = (
        "import fcntl, sys\n"
        "def none(*_): raise OSError(37, 'No locks available')\n"
        "fcntl.flock = none\n"
        "from pyro_onebit.cli import main\n"
        f"sys.exit(main({[*common.TRAIN, 'lockless']}))\n"
    )
    (place / "lockless.py").write_text(script)
    ended = shell(f'"{sys.executable}" lockless.py', place)
    return row_of("terminals", "no file locks", ended, right=ended.code == 2)
