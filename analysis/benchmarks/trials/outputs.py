"""Files that are not ours, where ours would be written."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trials.common import STUDY, TRAIN, Row, fresh, inside, row_of, shell, small_run

FOREIGN = b'{"mine": 1}\nprecious\n'
RUN_FILES = (
    "config.json",
    "parameters.safetensors",
    "history.csv",
    "metrics.json",
    "progress.safetensors",
    "posterior.nc",
)
STUDY_FILES = ("results.csv", "failures.csv", "report.html", "study.toml", ".study.lock")


def outputs(args: argparse.Namespace) -> Iterator[Row]:
    """Foreign files, links, pipes, devices and directories; modes."""
    place = fresh(args.out / "outputs").resolve()
    for name in (*RUN_FILES, ".lock"):
        yield _kept(f"train over a foreign {name}", place / "run", place / "run" / name, *TRAIN, place / "run")
    for name in STUDY_FILES:
        yield _kept(f"study over a foreign {name}", place / "study", place / "study" / name, *STUDY, place / "study")
    within = "runs/layers1-ndims000002-steps3-gaussian-elbo-seed0"
    for name in RUN_FILES[:4]:
        target = place / "study" / within / name
        yield _kept(f"study over a run's foreign {name}", place / "study", target, *STUDY, place / "study")
    figure = place / "study" / "figures" / "loss.png"
    yield _kept("study over a foreign figure", place / "study", figure, *STUDY, place / "study")
    for name in (within, "runs", "figures"):
        yield _linked(f"study with a link for {name}", place, name)
    for name in ("failures.csv", ".study.lock", "results.csv", "report.html"):
        for kind in ("directory", "link", "pipe"):
            yield _odd(f"study with a {kind} for {name}", place, name, kind)
    run = small_run(fresh(place / "coder"))
    yield from _coding(place, run)
    forced = fresh(place / "forced")
    for name in RUN_FILES:
        (forced / name).write_bytes(FOREIGN)
    ended = inside(*TRAIN, forced, "--force")
    yield row_of("outputs", "train --force", ended, right=ended.code == 0 and FOREIGN not in _contents(forced))
    for mask, mode in (("077", 0o600), ("022", 0o644), ("027", 0o640)):
        ended = shell(f"umask {mask}; onebit {' '.join(TRAIN)} mode{mask}", place)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (place / f"mode{mask}").iterdir()}
        yield row_of("outputs", f"umask {mask}", ended, right=ended.code == 0 and modes == {mode})


def _contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]


def _kept(what: str, directory: Path, target: Path, *arguments: str | Path) -> Row:
    fresh(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(FOREIGN)
    ended = inside(*arguments)
    return row_of("outputs", what, ended, right=ended.code == 2, lost=target.read_bytes() != FOREIGN)


def _linked(what: str, place: Path, name: str) -> Row:
    study, elsewhere = fresh(place / "study"), fresh(place / "elsewhere")
    (study / name).parent.mkdir(parents=True, exist_ok=True)
    (study / name).symlink_to(elsewhere)
    ended = inside(*STUDY, study)
    return row_of("outputs", what, ended, right=ended.code == 2, lost=bool(list(elsewhere.iterdir())))


def _odd(what: str, place: Path, name: str, kind: str) -> Row:
    study, precious = fresh(place / "study"), place / "precious"
    precious.write_bytes(FOREIGN)
    target = study / name
    if kind == "directory":
        target.mkdir()
    elif kind == "link":
        target.symlink_to(precious)
    else:
        os.mkfifo(target)
    ended = inside(*STUDY, study)
    lost = precious.read_bytes() != FOREIGN or not target.exists() or target.is_symlink() != (kind == "link")
    return row_of("outputs", what, ended, right=ended.code == 2, lost=lost)


def _coding(place: Path, run: Path) -> Iterator[Row]:
    source, container = place / "source", place / "container"
    source.write_bytes(b"content")
    inside("encode", "--run", run, source, container, "--quiet", "--force")
    for verb, given in (("encode", source), ("decode", container)):
        for kind in ("file", "link", "pipe", "device", "directory", "itself"):
            target = place / "target"
            if target.is_dir() and not target.is_symlink():
                target.rmdir()
            target.unlink(missing_ok=True)
            if kind == "file":
                target.write_bytes(FOREIGN)
            elif kind == "link":
                target.symlink_to(given)
            elif kind == "pipe":
                os.mkfifo(target)
            elif kind == "device":
                os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            elif kind == "directory":
                target.mkdir()
            else:
                target = given
            before = target.lstat().st_mode, given.read_bytes()
            ended = inside(verb, "--run", run, given, target, "--quiet")
            lost = before != (target.lstat().st_mode, given.read_bytes())
            lost = lost or (kind == "file" and target.read_bytes() != FOREIGN)
            yield row_of("outputs", f"{verb} to a {kind}", ended, right=ended.code == 2, lost=lost)
