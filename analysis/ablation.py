"""What does each part of the default recipe for two layers earn? One part at a time is taken out.

    python analysis/ablation.py --seeds 5 --ndims 5 1000

A run that ends worse than without a latent begins again from a random start, as every run does.
Writes ``ablation.csv`` (a row a variant and ndims) and ``ablation.png`` (every seed), and prints the
table and the answer.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from matplotlib.figure import Figure

from pyro_onebit import Config, build, config, fit
from pyro_onebit.config import Recipe
from pyro_onebit.networks import PLAIN
from pyro_onebit.plots import save
from pyro_onebit.runs import write_table
from pyro_onebit.training import TrainingError

COLUMNS = ("variant", "ndims", "seeds", "worst", "median", "best", "seconds")
WHOLE = "default"


def variants() -> dict[str, Recipe]:
    """The default recipe, and it with one part replaced by what is usual."""
    whole = config.PRESETS["default"][2]
    arch, start = whole.arch, whole.arch.start
    assert whole.particles
    assert whole.clip
    rows = 2 * whole.particles
    return {
        WHOLE: whole,
        "no particle but the decoder's": replace(whole, particles=16),
        "noise no wider than q": replace(whole, noise_width=1.0),
        "independent noise": replace(whole, particles=None, rows=rows, clip=whole.clip * rows),
        "ELBO's own gradient": replace(whole, objective="elbo"),
        "Adam alone": replace(whole, soap=False),
        "no clipping": replace(whole, clip=None),
        "x not averaged": replace(whole, arch=replace(arch, average=False)),
        "bends not spread": replace(whole, arch=replace(arch, start=replace(start, spread=None, head=1.0))),
        "z2 not stretched": replace(whole, arch=replace(arch, stretch=False)),
        "random start": replace(whole, arch=replace(arch, start=PLAIN)),
    }


def excess(recipe: Recipe, ndims: int, seed: int, steps: int | None) -> tuple[float, float]:
    """Exact loss above the entropy, nats, and seconds; infinite if the run fails."""
    # By way of the module: in another process a name of this script's is a copy.
    config.PRESETS["ablation"] = {2: recipe}
    ablated: Any = Config(ndims=ndims, layers=2, seed=seed, preset="ablation", steps=steps)  # type: ignore[arg-type]
    try:
        run = fit(*build(ablated), ablated)
    except TrainingError as error:
        return float("inf"), error.run.seconds
    return run.metrics["loss"] - run.metrics["optimum"], run.seconds


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a variant and ndims; `each` holds the seeds' own results."""
    cells = list(itertools.product(variants().items(), args.ndims))
    jobs = [
        delayed(excess)(recipe, ndims, seed, args.steps) for (_, recipe), ndims in cells for seed in range(args.seeds)
    ]
    results = iter(Parallel(n_jobs=args.jobs)(jobs))
    rows = []
    for (name, _), ndims in cells:
        losses, seconds = zip(*itertools.islice(results, args.seeds), strict=True)
        rows.append(
            {
                "variant": name,
                "ndims": ndims,
                "seeds": args.seeds,
                "worst": max(losses),
                "median": statistics.median(losses),
                "best": min(losses),
                "seconds": statistics.median(seconds),
                "each": losses,
            }
        )
    return rows


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown; nats above the entropy."""
    lines = ["| variant | ndims | seeds | worst | median | best | s a run |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['variant']} | {row['ndims']} | {row['seeds']} | {row['worst']:.4f} | {row['median']:.4f} "
        f"| {row['best']:.4f} | {row['seconds']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every seed's distance from the entropy, a line a variant."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    result = Figure(figsize=(7.0, 0.6 + 0.45 * len(names)), layout="constrained")
    axes = result.subplots()
    all_ndims = sorted({row["ndims"] for row in rows})
    for shift, (ndims, colour, marker) in enumerate(
        zip(all_ndims, itertools.cycle(("#0072B2", "#D55E00", "#009E73")), itertools.cycle("osD"), strict=False)
    ):
        own = [row for row in rows if row["ndims"] == ndims]
        points = [(loss, names.index(row["variant"]) + 0.2 * shift) for row in own for loss in row["each"]]
        axes.plot(
            *zip(*points, strict=True), ls="none", marker=marker, ms=4, alpha=0.7, color=colour, label=f"n = {ndims}"
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="exact loss above the entropy (nats)")
    axes.grid(axis="x", color="0.93")
    axes.legend(frameon=False)
    return result


def answer(rows: Sequence[dict[str, Any]]) -> str:
    """Which parts matter most, in a sentence."""
    whole = {row["ndims"]: row["worst"] for row in rows if row["variant"] == WHOLE}
    ratios = {}
    for row in rows:
        if row["variant"] != WHOLE:
            ratio = row["worst"] / whole[row["ndims"]]
            ratios[row["variant"]] = max(ratio, ratios.get(row["variant"], 0.0))
    order = sorted(ratios, key=lambda name: -ratios[name])
    parts = ", ".join(f"{name} {ratios[name]:.3g}" for name in order)
    return (
        f"The worst seed's distance from the entropy, as a multiple of the default's (the larger over ndims): {parts}."
    )


def main(args: argparse.Namespace) -> None:
    """Train, draw, answer."""
    rows = measure(args)
    write_table(args.out / "ablation.csv", COLUMNS, [{name: row[name] for name in COLUMNS} for row in rows])
    save(figure(rows), args.out / "ablation.png")
    print(format_rows(rows))
    print(answer(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ndims", type=int, nargs="+", default=[5, 1000])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--steps", type=int, default=None, help="steps, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("results/ablation"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
