"""What does each part of the default recipe for two layers earn? One part at a time is taken out.

    python analysis/ablation.py                     # ten seeds

A run that ends worse than without a latent begins again from a random start, as every run does.
Writes ``ablation.csv`` (a row for each variant and ndims) and ``ablation.png`` (every seed), and prints the
table and the answer.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from common import parser_of, train, write
from matplotlib.figure import Figure

from pyro_onebit import RECIPES, Config, Recipe, register_recipe
from pyro_onebit.nn import PLAIN
from pyro_onebit.plots import LIGHT, PALETTE
from pyro_onebit.training import FirstStage

WHOLE = "default"


def variants() -> dict[str, Recipe]:
    """The default recipe, and it with one part replaced by what is usual."""
    whole: Recipe = RECIPES["default"](2)
    arch = whole.arch
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
        "no transport": replace(whole, arch=replace(arch, transport=False)),
        "planted start": replace(whole, first=FirstStage()),
        "no first stage": replace(whole, arch=replace(arch, start=PLAIN), first=FirstStage()),
    }


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """Exact loss above the entropy, nats, and seconds of every run; a run that fails is infinitely far away."""
    parts = []
    for variant, recipe in variants().items():
        preset = "ablation-" + re.sub(r"\W+", "-", variant)
        register_recipe(preset)(lambda layers, recipe=recipe: recipe)
        cells = itertools.product(args.ndims, range(args.seeds))
        configs = [Config(ndims, layers=2, seed=seed, preset=preset, steps=args.steps) for ndims, seed in cells]
        study = train(configs, args, variant)
        asked = pd.DataFrame([{"ndims": config.ndims, "seed": config.seed} for config in configs])
        found = study.table.assign(above=study.table["loss"] - study.table["entropy"])[
            ["ndims", "seed", "above", "seconds"]
        ]
        parts.append(asked.merge(found, how="left").assign(variant=variant).fillna({"above": float("inf")}))
    return pd.concat(parts, ignore_index=True)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant and ndims, over the seeds."""
    columns = {"worst": ("above", "max"), "median": ("above", "median"), "best": ("above", "min")}
    cells = runs.groupby(["variant", "ndims"], sort=False)
    return cells.agg(seeds=("seed", "size"), **columns, seconds=("seconds", "median")).reset_index()


def figure(runs: pd.DataFrame) -> Figure:
    """Every seed's distance from the entropy, a line for each variant."""
    names = list(dict.fromkeys(runs["variant"]))
    result = Figure(figsize=(7.0, 0.6 + 0.45 * len(names)), layout="constrained")
    axes = result.subplots()
    for shift, (ndims, own) in enumerate(runs.groupby("ndims")):
        colour, marker = PALETTE[shift % len(PALETTE)], "osD^"[shift % 4]
        at = [names.index(variant) + 0.2 * shift for variant in own["variant"]]
        axes.plot(own["above"], at, ls="none", marker=marker, ms=4, alpha=0.7, color=colour, label=f"n = {ndims}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="exact loss above the entropy (nats)")
    axes.grid(axis="x", color=LIGHT)
    axes.legend(frameon=False)
    return result


def answer(table: pd.DataFrame) -> str:
    """Which parts matter most, in a sentence."""
    worst = table.pivot(index="variant", columns="ndims", values="worst")
    ratios = (worst / worst.loc[WHOLE]).max(axis=1).drop(WHOLE).sort_values(ascending=False)
    parts = ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items())
    return (
        f"The worst seed's distance from the entropy, as a multiple of the default's (the larger over ndims): {parts}."
    )


def main(args: argparse.Namespace) -> None:
    """Train, draw, answer."""
    runs = measure(args)
    table = summarise(runs)
    write(args, "ablation", table, figure(runs), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return parser_of(__doc__, "ablation", ndims=[5, 1000], seeds=10).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
