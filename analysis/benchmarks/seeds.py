"""How long do many seeds of one configuration take side by side, in one program, and how near do they all end?

    python analysis/benchmarks/seeds.py                                    # on the processor
    python analysis/benchmarks/seeds.py --seeds 1 1000 --devices cpu cuda  # with a GPU; judging takes most of it

`pyro_onebit.fit` trains one seed at a time. Here all seeds' steps are one: the step is recorded as a graph of tensor
operations (`make_fx`), mapped over the seeds' parameters (`torch.vmap`), each with noise of its own, and on a GPU
captured and replayed as a CUDA graph. The recipe is the default one, in its two stages, from each seed's own random
weights. Every seed is judged exactly. ``fit`` in the column `way` is `pyro_onebit.fit` itself, for seed 0 alone.

Writes ``seeds.csv`` and ``seeds.png``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from peers.side_by_side import alone, judged, side_by_side

from pyro_onebit import Config, build, plots
from pyro_onebit.files import write_table
from pyro_onebit.plots import LIGHT, PALETTE
from pyro_onebit.reporting import markdown_table
from pyro_onebit.studies import Column


def main(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        for layers in args.layers:
            config = Config(ndims=args.ndims, layers=layers, steps=args.steps)
            limit = build(config)[1].optimum(config.data)
            ways = [("fit", 1, partial(alone, config))]
            ways += [("side by side", seeds, partial(side_by_side, config, seeds)) for seeds in args.seeds]
            for device, (way, seeds, trained) in itertools.product(args.devices, ways):
                print(f"{way} on {device}: layers {layers}, seeds {seeds}", file=sys.stderr, flush=True)
                pairs, seconds = trained(device)
                # As bytes: thousands of tensors are more than there may be open files.
                losses = pd.Series(pool.map(partial(judged, config=config), map(pickle.dumps, pairs), chunksize=8))
                row = {"device": device, "layers": layers, "ndims": args.ndims, "way": way, "seeds": seeds, **seconds}
                row |= {"s_per_seed": seconds["training_s"] / seeds}
                rows.append({**row, "worst": losses.max() - limit, "median": losses.median() - limit})
                write_table(args.out / "seeds.csv", pd.DataFrame(rows))
    table = pd.DataFrame(rows)
    plots.save(draw(table), args.out / "seeds.png")
    print(markdown_table(rows, [Column(name, format=".4g") for name in rows[0]]))
    print("", *answer(table), sep="\n")


def draw(table: pd.DataFrame) -> Figure:
    """Seconds per seed against the number of seeds; dashed: by `fit`."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, ((device, layers), own) in enumerate(table.groupby(["device", "layers"], sort=False)):
        together = own[own["way"] != "fit"]
        label = f"{device}, {'two layers' if layers == 2 else 'one layer'}"
        axes.plot("seeds", "s_per_seed", marker="o", color=PALETTE[i], label=label, data=together)
        axes.axhline(own["s_per_seed"].iloc[0], color=PALETTE[i], ls="--", lw=0.8)
    axes.set(xscale="log", yscale="log", xlabel="seeds side by side", ylabel="seconds a seed (dashed: fit)")
    axes.grid(color=LIGHT)
    axes.legend(frameon=False)
    return figure


def answer(table: pd.DataFrame) -> Iterator[str]:
    """What it comes to, a sentence for each device and number of layers."""
    for (device, layers), own in table.groupby(["device", "layers"], sort=False):
        one, most = own.iloc[0], own.loc[own["seeds"].idxmax()]
        yield (
            f"{device}, {'two layers' if layers == 2 else 'one layer'}, n = {most['ndims']}: {most['seeds']} seeds "
            f"side by side take {most['s_per_seed']:.4g} s each, where `fit` takes {one['s_per_seed']:.4g} s; the "
            f"worst ends {most['worst']:.3g} nats above the limit."
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ndims", type=int, default=5, help="dimensions of x, at most 125 with two layers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 10, 100], help="how many are trained at once")
    parser.add_argument("--steps", type=int, help="steps of the training, if not the recipe's")
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], default=["cpu"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that judge")
    parser.add_argument("--out", type=Path, default=Path("results/seeds"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
