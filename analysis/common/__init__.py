"""What the scripts that look at trained runs share: which runs, and where the answer goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_onebit import Run, load_run
from pyro_onebit.plots import save
from pyro_onebit.runs import run_path, write_table
from pyro_onebit.study import run_study
from pyro_onebit.studyfile import StudyGrid


def parser_of(doc: str | None, name: str, *, ndims: Sequence[int], layers: Sequence[int] = (1, 2)) -> Any:
    """A command line that says which runs to look at, and where to write."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument(
        "--run", type=Path, nargs="+", default=[], metavar="DIR", help="trained runs, instead of new ones"
    )
    parser.add_argument("--ndims", type=int, nargs="+", default=list(ndims))
    parser.add_argument("--layers", type=int, nargs="+", default=list(layers))
    parser.add_argument("--prob", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0, help="of the training, and of all draws")
    parser.add_argument("--steps", type=int, default=None, help="steps of the training, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("results") / name)
    return parser


def obtain(args: argparse.Namespace, **changes: Any) -> list[Run]:
    """The runs that the command line names, or else new ones, trained side by side, by layers and ndims."""
    if args.run:
        runs = [load_run(path) for path in args.run]
        return sorted(runs, key=lambda run: (run.config.layers, run.config.ndims))
    settings = {"prob": args.prob, "steps": args.steps, **changes}
    configs = StudyGrid(tuple(args.ndims), tuple(args.layers), seeds=(args.seed,), **settings).configs()
    study = run_study(configs, args.out, args.jobs)
    for name, reason in study.failures.items():
        print(f"{name} failed: {reason}")
    paths = [run_path(args.out, config) for config in configs]
    return [load_run(path) for path in paths if path.name not in study.failures]


def write(args: argparse.Namespace, name: str, rows: Sequence[dict[str, Any]], figure: Figure, answer: str) -> None:
    """Write the table and the figure, print the table in Markdown and the answer."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(args.out / f"{name}.csv", columns, rows)
    save(figure, args.out / f"{name}.png")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    print(f"\n{answer}\nwritten to {args.out}: {name}.csv, {name}.png")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
