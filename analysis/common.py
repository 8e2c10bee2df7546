"""What the scripts share: their command lines, the runs they look at, and where the answer goes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pyro_onebit import Config, Run, load_run, plots
from pyro_onebit.files import write_table
from pyro_onebit.plots import LAYER_NAMES
from pyro_onebit.reporting import markdown_table
from pyro_onebit.studies import Column, Study, StudyGrid, run_path, run_study


def parser_of(doc: str | None, name: str, **defaults: Any) -> argparse.ArgumentParser:
    """A command line for a script that trains: a flag for each of `defaults`, a list where its default is one.

    Arguments:
        doc: The script's docstring.
        name: The directory below results/ to write to, if no other is named.
        defaults: Flags and their defaults.
    """
    parser = argparse.ArgumentParser(
        description=(doc or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for flag, default in defaults.items():
        several = isinstance(default, list | tuple)
        kind = type(default[0]) if several else type(default)
        parser.add_argument(
            f"--{flag}", type=kind, nargs="+" if several else None, default=default, help=_HELP.get(flag)
        )
    parser.add_argument("--steps", type=int, help="steps of the training, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=Path("results") / name, help="directory to write to")
    return parser


_HELP = {
    "ndims": "dimensions of x",
    "bits": "bits of information, among which the dimensions are dealt",
    "layers": "latent layers",
    "prob": "probability of codeword 1",
    "seed": "seed of the training, and of all draws",
    "seeds": "seeds",
    "guides": "guides",
}


def parser_of_looks(
    doc: str | None, name: str, ndims: Sequence[int], layers: Sequence[int] = (1, 2)
) -> argparse.ArgumentParser:
    """A command line for a script that looks at trained runs: which, and where to write."""
    parser = parser_of(doc, name, ndims=list(ndims), layers=list(layers), prob=0.5, seed=0)
    parser.add_argument("--run", type=Path, nargs="+", default=[], metavar="DIR", help="trained runs, not new ones")
    return parser


def obtain(args: argparse.Namespace) -> list[Run]:
    """The runs that the command line names, or else new ones, trained side by side, by layers and ndims."""
    if args.run:
        runs = [load_run(path) for path in args.run]
        return sorted(runs, key=lambda run: (run.config.layers, run.config.ndims))
    grid = StudyGrid(tuple(args.ndims), tuple(args.layers), seeds=(args.seed,), prob=args.prob, steps=args.steps)
    return trained(grid.configs(), args)


def trained(configs: Iterable[Config], args: argparse.Namespace, what: str = "") -> list[Run]:
    """The runs of configurations, existing ones or new; one that failed is reported, and left out."""
    configs = list(dict.fromkeys(configs))
    study = train(configs, args, what)
    paths = [run_path(args.out, config) for config in configs]
    return [load_run(path) for path in paths if path.name not in study.failures]


def train(configs: Sequence[Config], args: argparse.Namespace, what: str = "", out: Path | None = None) -> Study:
    """A study of configurations, in a directory or the command line's own; what it is about is told."""
    tell(f"{what or 'training'}: {len(configs)} run{'s' * (len(configs) != 1)}")
    study = run_study(configs, out or args.out, args.jobs, quiet=False)
    tell_failures(study.failures)
    return study


def spaced(most: int, points: int) -> list[int]:
    """Whole numbers from 1 to `most`, about evenly spaced in their logarithm."""
    numbers: list[int] = np.unique(np.geomspace(1, most, points).round()).astype(int).tolist()
    return numbers


def named(layers: int, ndims: int, prob: float = 0.5) -> str:
    """What a cell is called."""
    return f"{LAYER_NAMES[layers]}, n = {ndims}" + f", p = {prob:g}" * (prob != 0.5)


def tell(line: str) -> None:
    """Say on standard error what is done now, as it may take minutes."""
    print(line, file=sys.stderr, flush=True)


def tell_failures(failures: dict[str, str]) -> None:
    """Print what became of runs that have no result."""
    for name, reason in failures.items():
        print(f"{name} failed: {reason}")


def write(
    args: argparse.Namespace,
    name: str,
    rows: Sequence[dict[str, Any]] | pd.DataFrame,
    figure: Figure,
    answer: Iterable[str],
) -> None:
    """Write the table and the figure, print the table in Markdown and the answer's sentences, a line each."""
    table = pd.DataFrame(rows)
    write_table(args.out / f"{name}.csv", table)
    plots.save(figure, args.out / f"{name}.png")
    columns = [Column(str(column), format=".5g") for column in table]
    print(markdown_table(table.astype(object).to_dict("records"), columns))
    print("", *answer, sep="\n")
    print(f"written to {args.out}: {name}.csv, {name}.png")
