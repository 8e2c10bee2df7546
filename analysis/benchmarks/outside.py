"""What does the world outside do to a command? Foreign files, damage, signals, other settings and terminals.

    python analysis/benchmarks/outside.py                                  # everything: about an hour on two cores
    python analysis/benchmarks/outside.py --sections outputs containers    # some of it

Each attempt says whether a traceback came out, a result was wrong, a file was lost that was not ours, or a process was
left behind. Writes ``attempts-SECTION.csv``, a row for each attempt, and, of all sections that are there by then,
``outside.csv``, a row for each, and ``outside.png``; prints that table and what came of it. Some need the right
to make device nodes, to mount a small file system and to fix a directory (chattr), and a C compiler.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from trials import FAULTS, SECTIONS, Row, answer, summarise

from pyro_onebit.files import write_table
from pyro_onebit.plots import LIGHT, PALETTE, save
from pyro_onebit.reporting import markdown_table
from pyro_onebit.studies import Column


def main(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sections:
        start = time.monotonic()
        own = list(SECTIONS[name](args))
        pd.DataFrame(own).to_csv(args.out / f"attempts-{name}.csv", index=False)
        print(f"{name}: {answer(own)} {time.monotonic() - start:.0f} s", flush=True)
        for row in own:
            if any(row[fault] for fault in FAULTS):
                print(f"  {row}", flush=True)
    paths = [path for name in SECTIONS if (path := args.out / f"attempts-{name}.csv").exists()]
    rows: list[Row] = pd.concat(map(pd.read_csv, paths)).to_dict("records")
    table = summarise(rows)
    write_table(args.out / "outside.csv", pd.DataFrame(table))
    save(draw(table), args.out / "outside.png", "Attempts of each kind, and those that showed a fault.")
    print(markdown_table(table, [Column(str(name)) for name in table[0]]))
    print(answer(rows))
    if any(row[fault] for row in rows for fault in FAULTS):
        raise SystemExit(1)


def draw(table: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.subplots()
    names = [row["section"] for row in table]
    faults = [sum(row[fault] for fault in FAULTS) for row in table]
    axes.barh(names, [row["tried"] for row in table], color=PALETTE[0], label="tried")
    axes.barh(names, faults, color=PALETTE[1], label="showed a fault")
    axes.set(xscale="symlog", xlabel="attempts")
    axes.invert_yaxis()
    axes.grid(color=LIGHT, axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--containers", type=int, default=20_000, help="damaged containers")
    parser.add_argument("--signed", type=int, default=100, help="forged and signed ones")
    parser.add_argument("--files", type=int, default=400, help="forged files of runs and studies")
    parser.add_argument("--states", type=int, default=200, help="forged and damaged states")
    parser.add_argument("--threads", type=int, default=5, help="times that four threads train at once")
    parser.add_argument("--kills", type=int, default=20, help="kills of a study, a quarter in each of its phases")
    parser.add_argument("--signals", type=int, default=10, help="of each signal")
    parser.add_argument("--strangers", type=int, default=100, help="two-layer runs that are forged")
    parser.add_argument("--steps", type=int, default=1500, help="of the runs of a study that is disturbed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the damage")
    parser.add_argument("--out", type=Path, default=Path("results/outside"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
