"""How long does training take, and what does it reach, against the same models in other hands?

    python analysis/benchmark_training.py                      # everything: hours
    python analysis/benchmark_training.py --sections step --repeats 5
    python analysis/benchmark_training.py --steps 100 --ndims 1 5 --growth-ndims 1 10   # does it run

Contenders: this package with its default preset (``package``) and with the original's settings
(``reference``); the latter written as a plain Pyro program (``pyro``), as a NumPyro program that
scans over its updates in one compiled loop (``numpyro``), and by hand in torch (``torch``).

Each measurement runs in a fresh process, one after the other. `pyro_onebit.fit` trains on one thread
whatever it is given; the peers get as many as ``--threads`` says, and of several numbers a cell's
fastest. What is compiled while training counts, importing Python modules does not (in the section
``study``, which times whole processes, it does). Parameters are judged by quadrature, after the clock
has stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from peers import Work
from peers.measure import CONTENDERS, PEERS, Row, measure, measure_growth, measure_step, train_only, work_of
from peers.report import TITLES, answer, fastest, format_table, medians, plot, write_csv

SECTIONS = ["cells", "study", "step", "growth"]
#: Steps of a run that is timed for its steps alone.
FEW_STEPS = 300
#: How far two ways to compute the same losses may be apart, relatively: they are float32.
SAME_LOSS = 1e-5


def main(args: argparse.Namespace) -> None:
    if "numpyro" in args.contenders and importlib.util.find_spec("numpyro") is None:
        print(
            "error: numpyro is not installed; install it with: pip install 'pyro-onebit[bench]', or name the other"
            " contenders with --contenders",
            file=sys.stderr,
        )
        raise SystemExit(2)
    args.out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[Row]] = {}

    def publish(name: str, rows: list[Row]) -> None:
        """As soon as it is there: the whole takes hours."""
        tables[name] = rows
        write_csv(args.out / f"{name}.csv", rows)
        print(f"\n{TITLES[name]}\n{format_table(rows)}", flush=True)

    if "cells" in args.sections:
        runs = time_cells(args)
        write_csv(args.out / "runs.csv", runs)
        publish("cells", fastest(medians(runs, by=("contender", "layers", "ndims", "threads"))))
    if "study" in args.sections:
        publish("study", time_studies(args))
    if "step" in args.sections:
        publish("step", time_steps(args))
    if "growth" in args.sections:
        publish("growth_ndims", grow_ndims(args))
        publish("growth_runs", grow_runs(args))
    plot(tables).savefig(args.out / "benchmark.png", dpi=150)
    print(f"\n{answer(tables)}\n(tables and figure in {args.out})")


def time_cells(args: argparse.Namespace) -> list[Row]:
    """Every contender in every cell, each in a process of its own, one after the other."""
    rows = []
    for seed in range(args.repeats):
        for layers in args.layers:
            for ndims in args.ndims:
                # Contenders take turns, so that a slow quarter of an hour falls on all of them.
                for contender in args.contenders:
                    for threads in args.threads if contender in PEERS else [1]:
                        progress(f"cells: {contender}, {threads} thread(s), {layers}L, n = {ndims}, seed {seed}")
                        job = (contender, work_of(contender, ndims, layers, seed, args.steps))
                        rows += in_fresh_processes(measure, [job], processes=1, threads=threads)
    return rows


def time_studies(args: argparse.Namespace) -> list[Row]:
    """All cells in one call: spread over processes with one thread each, and NumPyro also in one process."""
    ways = [(contender, args.jobs, 1) for contender in args.contenders]
    if "numpyro" in args.contenders:
        ways.append(("numpyro", 1, args.jobs))
    results: list[Row] = []
    for repeat in range(args.repeats):
        for contender, processes, threads in ways:
            progress(f"study: {contender}, {processes} process(es) of {threads} thread(s), repeat {repeat}")
            # The longest first, so that no process is left with a long run at the end.
            jobs = [
                (contender, work_of(contender, ndims, layers, repeat, args.steps))
                for layers in sorted(args.layers, reverse=True)
                for ndims in sorted(args.ndims, reverse=True)
            ]
            way = {"contender": contender, "processes": processes, "threads": threads}
            results.append(way | time_pool(jobs, processes, threads))
        # The command trains with its presets' own numbers of steps.
        if "package" in args.contenders and args.steps is None:
            progress(f"study: the command itself, repeat {repeat}")
            way = {"contender": "onebit study", "processes": args.jobs, "threads": 1}
            results.append(way | {"wall_s": time_command(args, repeat)})
    return medians(results, by=("contender", "processes", "threads"))


def time_pool(jobs: Sequence[tuple[str, Work]], processes: int, threads: int) -> Row:
    """Wall time of a pool of processes that trains all jobs, and the peaks of its processes' memory."""
    start = time.perf_counter()
    runs = in_fresh_processes(train_only, jobs, processes, threads)
    wall = time.perf_counter() - start
    peaks: dict[int, float] = {}
    for run in runs:
        peaks[run["pid"]] = max(run["peak_mb"], peaks.get(run["pid"], 0.0))
    return {
        "wall_s": wall,
        "training_s": sum(run["training_seconds"] for run in runs),
        "largest_process_mb": max(peaks.values()),
        "all_processes_mb": sum(peaks.values()),
    }


def time_command(args: argparse.Namespace, seed: int) -> float:
    """Wall time of ``onebit study``, with all that it computes and writes."""
    flags = ["--ndims", *args.ndims, "--layers", *args.layers, "--seeds", seed, "--jobs", args.jobs]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "pyro_onebit.cli", "study", *map(str, flags), "--out", out, "--quiet"]
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def time_steps(args: argparse.Namespace) -> list[Row]:
    """The default preset's step against the same step by hand, in turns, and whether both do the same.

    On one thread each: `fit` takes no more.
    """
    rows = []
    for layers in args.layers:
        for ndims in args.ndims:
            progress(f"step: {layers} layer(s), n = {ndims}")
            results: dict[str, list[Row]] = {"package": [], "torch": []}
            for seed in range(args.repeats):
                work = work_of("package", ndims, layers, seed, args.steps or FEW_STEPS)
                for contender, rows_of in results.items():
                    rows_of += in_fresh_processes(measure_step, [(contender, work)], processes=1, threads=1)
            package, by_hand = (statistics.median(r["ms_per_step"] for r in results[c]) for c in results)
            difference = largest_difference(results["package"], results["torch"])
            rows.append(
                {
                    "layers": layers,
                    "ndims": ndims,
                    "package_ms": package,
                    "by_hand_ms": by_hand,
                    "ratio": package / by_hand,
                    "loss_difference": difference,
                }
            )
            if difference > SAME_LOSS:
                progress("warning: their losses differ; peers/hand_torch.py does not do what the default preset does")
    return rows


def largest_difference(ours: Sequence[Row], theirs: Sequence[Row]) -> float:
    """Between the first losses of runs with equal seeds, relative where they exceed 1 nat.

    Not the later ones: SOAP magnifies rounding from its first update on, also between equal programs.
    """
    pairs = [(a["first_loss"], b["first_loss"]) for a, b in zip(ours, theirs, strict=True)]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)


def grow_ndims(args: argparse.Namespace) -> list[Row]:
    """A few hundred steps at each n."""
    rows = []
    for layers in args.layers:
        for ndims in args.growth_ndims:
            progress(f"growth: {layers} layer(s), n = {ndims}")
            job = (work_of("package", ndims, layers, 0, args.steps or FEW_STEPS),)
            rows += in_fresh_processes(measure_growth, [job], processes=1, threads=1)
            if not rows[-1]["finished"]:
                progress("warning: its training met a value that is not finite")
    return rows


def grow_runs(args: argparse.Namespace) -> list[Row]:
    """Studies of more and more seeds of one cell."""
    layers, ndims = max(args.layers), sorted(args.ndims)[len(args.ndims) // 2]
    rows = []
    for runs in args.growth_runs:
        progress(f"growth: {runs} run(s) of {layers} layer(s), n = {ndims}")
        jobs = [("package", work_of("package", ndims, layers, seed, args.steps)) for seed in range(runs)]
        rows.append({"layers": layers, "ndims": ndims, "runs": runs, **time_pool(jobs, args.jobs, 1)})
    return rows


def in_fresh_processes(
    function: Callable[..., Row], jobs: Sequence[tuple[str | Work, ...]], processes: int, threads: int
) -> list[Row]:
    """The results of ``function(*job)``, in order, from new interpreters with so many threads each."""
    with (
        thread_limits(threads),
        ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool,
    ):
        futures = [pool.submit(function, *job) for job in jobs]
        return [future.result() for future in futures]


@contextlib.contextmanager
def thread_limits(threads: int) -> Iterator[None]:
    """The environment in which torch, BLAS and XLA use so many threads, and the CPU."""
    # NPROC is what XLA takes for the number of cores.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    limits = dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": "cpu"}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--ndims", type=int, nargs="+", default=[1, 5, 10, 100, 1000], help="dimensions of x")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2], choices=[1, 2], help="latent layers")
    parser.add_argument("--repeats", type=int, default=3, help="repeats, each with a seed of its own; medians count")
    parser.add_argument("--steps", type=int, help="steps of every run, instead of each contender's own")
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS, help="who takes part")
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS, help="what is measured")
    parser.add_argument("--threads", type=int, nargs="+", default=[cores], help="threads of a peer's process in cells")
    parser.add_argument("--jobs", type=int, default=cores, help="processes of a study, one thread each")
    parser.add_argument(
        "--growth-ndims", type=int, nargs="+", default=[10**k for k in range(6)], help="dimensions in section growth"
    )
    parser.add_argument("--growth-runs", type=int, nargs="+", default=[1, 2, 4, 8], help="runs in section growth")
    parser.add_argument("--out", type=Path, default=Path("results/benchmark"), help="where tables and figure go")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse())
