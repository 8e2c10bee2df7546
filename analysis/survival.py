"""Does a study survive what happens to long jobs? Kills, a full disk, a cluster that loses a worker.

    python analysis/survival.py                                 # about 40 minutes on two cores
    python analysis/survival.py --sections kills --trials 3

*kills*: all processes of a study are killed at random moments, and the same command is given again. *cluster*: a
Dask scheduler and two workers train a study, and one worker is killed. *disk* (needs the right to mount a small
file system): a study meets a full disk, and resumes when there is space. Each time ``results.csv`` must equal an
undisturbed study's but for the seconds. Writes ``survival.csv``, which also says how far the unfinished runs' states
were, and ``survival.png``, and says what came of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import tell, write
from matplotlib.figure import Figure
from safetensors import safe_open

from pyro_onebit.files import read_table
from pyro_onebit.plots import LIGHT, PALETTE
from pyro_onebit.studies import records

SECTIONS = ("kills", "cluster", "disk")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def study(args: argparse.Namespace, seeds: int, steps: int, out: Path, *more: str) -> list[str]:
    """A study's command."""
    grid = ["--ndims", "3", "--layers", *map(str, args.layers), "--seeds", *map(str, range(seeds))]
    settings = ["--steps", str(steps), "--jobs", str(args.jobs), "--quiet", "--out", str(out)]
    return [sys.executable, "-m", "pyro_onebit", "study", *grid, *settings, *more]


def undisturbed(args: argparse.Namespace, seeds: int, steps: int) -> tuple[list[dict[str, Any]], float]:
    """What must come out, and the seconds it takes."""
    out, start = args.out / f"undisturbed-seeds{seeds}-steps{steps}", time.monotonic()
    tell(f"an undisturbed study, {steps} steps")
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(study(args, seeds, steps, out), check=True, **QUIET)
    return results(out), time.monotonic() - start


def results(out: Path) -> list[dict[str, Any]]:
    """The table without the seconds."""
    return records(read_table(out / "results.csv").drop(columns="seconds"))


def row_of(section: str, trial: int, at: float, out: Path) -> dict[str, Any]:
    """What was there at a disturbance: finished runs, and the steps that the states of the others had come to."""
    states = []
    for path in sorted(out.glob("runs/*/progress.safetensors")):
        with safe_open(path, "pt") as file:
            states.append(json.loads(file.metadata()["state"])["step"])
    found = {"finished": finished(out), "states": len(states), "steps_kept": " ".join(map(str, states))}
    return {"section": section, "trial": trial, "at": at, **found}


def finished(out: Path) -> int:
    return len(list(out.glob("runs/*/metrics.json")))


def kills(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per kill: when, how far the study was, and whether the same came out in the end."""
    expected, duration = undisturbed(args, args.seeds, args.steps)
    rows, chance = [], random.Random(args.seed)
    for trial in range(args.trials):
        tell(f"kill {trial + 1} of {args.trials}")
        out = args.out / f"killed{trial}"
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(study(args, args.seeds, args.steps, out), start_new_session=True, **QUIET)
        moment = chance.uniform(0.0, duration)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        row = row_of("kills", trial, moment, out)
        subprocess.run(study(args, args.seeds, args.steps, out), check=True, **QUIET)
        rows.append({**row, "same": results(out) == expected})
    return rows


def cluster(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row: two workers, one of them killed when a tenth of the runs is finished."""
    seeds = args.runs // len(args.layers)
    args.short = min(args.short, args.steps)
    expected, _ = undisturbed(args, seeds, args.short)
    tell("a cluster that loses a worker")
    out, file = args.out / "cluster", args.out / "scheduler.json"
    shutil.rmtree(out, ignore_errors=True)
    file.unlink(missing_ok=True)
    common: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    processes = [subprocess.Popen([*module, "--no-dashboard", "--scheduler-file", str(file)], **common)]
    module = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    processes += [subprocess.Popen([*module, "--no-nanny", "--no-dashboard"], **common) for _ in range(2)]
    try:
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        start = time.monotonic()
        process = subprocess.Popen(study(args, seeds, args.short, out, "--cluster", address), **QUIET)
        while finished(out) < args.runs // 10 and process.poll() is None:
            time.sleep(0.05)
        row = row_of("cluster", 0, time.monotonic() - start, out)
        processes[1].kill()
        process.communicate()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [{**row, "same": results(out) == expected}]


def disk(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row: a small file system that something else fills once a run is finished, and that has room again later."""
    expected, _ = undisturbed(args, args.seeds, args.steps)
    place = args.out / "small"
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
    tell("a full disk")
    try:
        out, filler, start = place / "study", place / "filler", time.monotonic()
        process = subprocess.Popen(study(args, args.seeds, args.steps, out), **QUIET)
        while finished(out) < 1:
            time.sleep(0.05)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        at = time.monotonic() - start
        _, error = process.communicate()
        print(f"with a full disk: exit code {process.returncode}, {error.strip()}")
        row = row_of("disk", 0, at, out)
        filler.unlink()
        subprocess.run(study(args, args.seeds, args.steps, out), check=True, **QUIET)
        same = process.returncode == 2 and results(out) == expected
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return [{**row, "same": same}]


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """When each study was disturbed, a line for each section; the number at a marker is of runs finished by then."""
    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    axes = figure.subplots()
    sections = [section for section in SECTIONS if any(row["section"] == section for row in rows)]
    for same, marker, colour in ((True, "o", PALETTE[0]), (False, "X", PALETTE[4])):
        own = [row for row in rows if row["same"] == same]
        label = "the same results in the end" if same else "OTHER results in the end"
        places = [sections.index(row["section"]) for row in own]
        if own:
            axes.plot([row["at"] for row in own], places, color=colour, marker=marker, ls="none", label=label)
        for row, place in zip(own, places, strict=True):
            above = {"textcoords": "offset points", "xytext": (0, 6), "ha": "center", "fontsize": 9}
            axes.annotate(str(row["finished"]), (row["at"], place), **above)
    axes.set(xlabel="disturbed after (s); above: runs finished by then", ylim=(-0.5, len(sections) - 0.3))
    axes.set_yticks(range(len(sections)), sections)
    axes.grid(color=LIGHT)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def answer(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for section in SECTIONS:
        own = [row for row in rows if row["section"] == section]
        if own:
            same = sum(row["same"] for row in own)
            yield f"{section}: {same} of {len(own)} ended with the undisturbed study's results.csv."


def main(args: argparse.Namespace) -> None:
    rows = [
        row for section in args.sections for row in {"kills": kills, "cluster": cluster, "disk": disk}[section](args)
    ]
    write(args, "survival", rows, draw(rows), answer(rows))
    if not all(row["same"] for row in rows):
        raise SystemExit(1)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["kills", "cluster"])
    parser.add_argument("--trials", type=int, default=20, help="kills")
    parser.add_argument("--runs", type=int, default=400, help="of the cluster's study")
    parser.add_argument("--short", type=int, default=20, help="steps of those runs")
    parser.add_argument("--seeds", type=int, default=2, help="of the studies that are killed, or meet a full disk")
    parser.add_argument("--steps", type=int, default=8000, help="of their runs: enough for a state in the middle")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("results/survival"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
