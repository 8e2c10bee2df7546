"""How long does training take, and what does it reach, against the same models in other hands?

    python analysis/benchmarks/training.py                      # everything: hours
    python analysis/benchmarks/training.py --sections step --repeats 5
    python analysis/benchmarks/training.py --steps 100 --ndims 1 5 --growth-ndims 1 10   # does it run

Contenders: this package with its default preset (``package``) and with the original's settings (``reference``); the
latter written as a plain Pyro program (``pyro``), as a NumPyro program that scans over its updates in one compiled
loop (``numpyro``), and by hand in torch (``torch``).

Each measurement runs in a fresh process, one after the other. `pyro_onebit.fit` trains on one thread whatever it is
given; the peers get as many as ``--threads`` says, and of several numbers a cell's fastest. What is compiled while
training counts, importing Python modules does not (in the section ``study``, which times whole processes, it does).
Parameters are judged by quadrature, after the clock has stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from peers import Work, measure
from peers.measure import CONTENDERS, PEERS, Row, work_of

SECTIONS = ["cells", "study", "step", "growth"]
#: What a run is called in a table.
NAMES = ["contender", "layers", "ndims", "seed", "threads", "steps"]
#: Steps of a run that is timed for its steps alone.
FEW_STEPS = 300


def main(args: argparse.Namespace) -> None:
    # Not at the top, which every process runs: the contenders need no pandas, and a study's clock would count it.
    import pandas as pd
    from peers import report

    from pyro_onebit.reporting import text_table
    from pyro_onebit.studies import Column

    args.out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {}

    def publish(name: str, table: pd.DataFrame) -> None:
        """As soon as it is there: the whole takes hours."""
        tables[name] = table
        table.to_csv(args.out / f"{name}.csv", index=False)
        columns = [Column(str(column), format=".5g") for column in table]
        text = text_table(table.astype(object).to_dict("records"), columns)
        print(f"\n{report.TITLES[name]}\n{text}", flush=True)

    if "cells" in args.sections:
        runs = pd.DataFrame(time_cells(args))
        runs.to_csv(args.out / "runs.csv", index=False)
        publish("cells", report.cells_table(runs))
    if "study" in args.sections:
        publish("study", report.study_table(time_studies(args)))
    if "step" in args.sections:
        publish("step", report.step_table(time_steps(args)))
    if "growth" in args.sections:
        publish("growth_ndims", pd.DataFrame(grow_ndims(args)).drop(columns=["contender", "seed", "threads"]))
        publish("growth_runs", pd.DataFrame(grow_runs(args)))
    report.plot(tables).savefig(args.out / "benchmark.png", dpi=150)
    print(f"\n{report.answer(tables)}\n(tables and figure in {args.out})")


def time_cells(args: argparse.Namespace) -> Iterator[Row]:
    """Every contender in every cell; they take turns, so that a slow quarter of an hour falls on all of them."""
    turns = itertools.product(range(args.repeats), args.layers, args.ndims, args.contenders)
    for seed, layers, ndims, contender in turns:
        for threads in args.threads if contender in PEERS else [1]:
            yield from fresh(measure.time_cell, work_of(contender, layers, ndims, seed, args.steps, threads))


def time_steps(args: argparse.Namespace) -> Iterator[Row]:
    """The default preset's step and the same step by hand, in turns, on one thread each: `fit` takes no more."""
    turns = itertools.product(args.layers, args.ndims, range(args.repeats), ("package", "torch"))
    for layers, ndims, seed, contender in turns:
        yield from fresh(measure.time_step, work_of(contender, layers, ndims, seed, args.steps or FEW_STEPS))


def grow_ndims(args: argparse.Namespace) -> Iterator[Row]:
    """A few hundred steps at each n."""
    for layers, ndims in itertools.product(args.layers, args.growth_ndims):
        yield from fresh(measure.time_growth, work_of("package", layers, ndims, 0, args.steps or FEW_STEPS))


def grow_runs(args: argparse.Namespace) -> Iterator[Row]:
    """Studies of more and more seeds of one cell."""
    layers, ndims = max(args.layers), sorted(args.ndims)[len(args.ndims) // 2]
    for runs in args.growth_runs:
        works = [work_of("package", layers, ndims, seed, args.steps) for seed in range(runs)]
        yield {"layers": layers, "ndims": ndims, "runs": runs} | time_pool(works, args.jobs)


def time_studies(args: argparse.Namespace) -> Iterator[Row]:
    """All cells in one call: spread over processes with one thread each, and NumPyro also in one process."""
    # The longest first, so that no process is left with a long run at the end.
    cells = list(itertools.product(sorted(args.layers, reverse=True), sorted(args.ndims, reverse=True)))
    ways = [(contender, args.jobs, 1) for contender in args.contenders]
    ways += [("numpyro", 1, args.jobs)] if "numpyro" in args.contenders else []
    # The command trains with its presets' own numbers of steps.
    ways += [("onebit study", args.jobs, 1)] if "package" in args.contenders and args.steps is None else []
    for seed, (contender, processes, threads) in itertools.product(range(args.repeats), ways):
        way = {"contender": contender, "processes": processes, "threads": threads}
        if contender == "onebit study":
            yield way | time_command(args, seed)
        else:
            yield way | time_pool([work_of(contender, *cell, seed, args.steps, threads) for cell in cells], processes)


def time_pool(works: Sequence[Work], processes: int) -> Row:
    """Wall time of a pool of processes that trains them all, and the peaks of its processes' memory."""
    start = time.perf_counter()
    runs = fresh(measure.time_run, *works, processes=processes)
    wall, training = time.perf_counter() - start, sum(run["training_s"] for run in runs)
    # The last of a process's runs has seen its peak.
    peaks = {run["pid"]: run["peak_mb"] for run in runs}.values()
    return {"wall_s": wall, "training_s": training, "largest_process_mb": max(peaks), "all_processes_mb": sum(peaks)}


def time_command(args: argparse.Namespace, seed: int) -> Row:
    """Wall time of ``onebit study``, with all that it computes and writes."""
    flags = ["--ndims", *args.ndims, "--layers", *args.layers, "--seeds", seed, "--jobs", args.jobs]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "pyro_onebit", "study", *map(str, flags), "--out", out, "--quiet"]
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return {"wall_s": time.perf_counter() - start}


def fresh(function: Callable[[Work], Row], *works: Work, processes: int = 1) -> list[Row]:
    """What was run and what `function` returned, in order, from new interpreters."""
    cells = [{name: getattr(work, name) for name in NAMES} for work in works]
    print(f"[{time.strftime('%H:%M:%S')}] {function.__name__} of {len(works)}: {cells[0]}", file=sys.stderr, flush=True)
    size, limit = min(processes, len(works)), (works[0].threads,)
    with ProcessPoolExecutor(size, get_context("spawn"), measure.limit_threads, limit) as pool:
        return [cell | result for cell, result in zip(cells, pool.map(function, works), strict=True)]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--ndims", type=int, nargs="+", default=[1, 5, 10, 100, 1000], help="dimensions of x")
    add("--layers", type=int, nargs="+", default=[1, 2], choices=[1, 2], help="latent layers")
    add("--repeats", type=int, default=3, help="repeats, each with a seed of its own; medians count")
    add("--steps", type=int, help="steps of every run, instead of each contender's own")
    add("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS, help="who takes part")
    add("--sections", nargs="+", default=SECTIONS, choices=SECTIONS, help="what is measured")
    add("--threads", type=int, nargs="+", default=[cores], help="threads of a peer's process in cells")
    add("--jobs", type=int, default=cores, help="processes of a study, one thread each")
    add("--growth-ndims", type=int, nargs="+", default=[10**k for k in range(6)], help="dimensions in section growth")
    add("--growth-runs", type=int, nargs="+", default=[1, 2, 4, 8], help="runs in section growth")
    add("--out", type=Path, default=Path("results/benchmark"), help="where tables and figure go")
    args = parser.parse_args(argv)
    if "numpyro" in args.contenders and importlib.util.find_spec("numpyro") is None:
        parser.error("numpyro is not installed: pip install 'pyro-onebit[bench]', or name others with --contenders")
    return args


if __name__ == "__main__":
    main(parse())
