"""What does each part of the default recipes earn? One part at a time is taken out.

    python analysis/ablation.py                     # ten seeds
    python analysis/ablation.py --preset thorough --cells 2/5 2/1000 --variants "Adam alone"

A run that ends worse than without a latent begins again from a random start, as every run does.
Writes ``ablation.csv`` (a row for each variant and cell) and ``ablation.png`` (every seed), and prints the
table and the answer.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from common import named, parser_of, train, write
from matplotlib.figure import Figure

from pyro_onebit import RECIPES, Config, Recipe, register_recipe
from pyro_onebit.nn import PLAIN
from pyro_onebit.plots import LIGHT, MARKERS, PALETTE, legend
from pyro_onebit.training import FirstStage

WHOLE = "default"
#: What identifies a cell of the grid.
CELL = ["layers", "ndims", "prob"]


def variants(layers: int, preset: str) -> dict[str, Recipe]:
    """A preset's recipe, and it with one part replaced by what is usual; of two layers some parts are their own."""
    whole: Recipe = RECIPES[preset](layers)
    arch = whole.arch
    assert whole.particles
    assert whole.clip
    rows = 2 * whole.particles
    own = {
        "no particle but the decoder's": replace(whole, particles=16),
        "ELBO's own gradient": replace(whole, objective="elbo"),
        "Adam alone": replace(whole, soap=False),
        "no transport": replace(whole, arch=replace(arch, transport=False)),
    }
    narrow = replace(whole.first, noise_width=1.0)
    return {
        WHOLE: whole,
        "noise no wider than q": replace(whole, noise_width=1.0, first=narrow),
        "independent noise": replace(whole, particles=None, rows=rows, clip=whole.clip * rows),
        "no clipping": replace(whole, clip=None),
        "x not averaged": replace(whole, arch=replace(arch, average=False)),
        "planted start": replace(whole, first=FirstStage()),
        "no first stage": replace(whole, arch=replace(arch, start=PLAIN), first=FirstStage()),
        **(own if layers == 2 else {}),
    }


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """Exact loss above the limit, nats, and seconds of every run; a run that fails is infinitely far away."""
    parts = []
    for layers in (2, 1):
        cells = [(ndims, prob) for own, ndims, prob in args.cells if own == layers]
        for variant, recipe in variants(layers, args.preset).items():
            if variant not in (WHOLE, *args.variants):
                continue
            preset = "ablation-" + re.sub(r"\W+", "-", variant)
            register_recipe(preset)(lambda layers, recipe=recipe: recipe)
            configs = [
                Config(ndims, layers=layers, prob=prob, seed=seed, preset=preset, steps=args.steps)
                for (ndims, prob), seed in itertools.product(cells, range(args.seeds))
            ]
            if not configs:
                continue
            study = train(configs, args, f"{layers} layer(s), {variant}")
            asked = pd.DataFrame([{name: getattr(config, name) for name in (*CELL, "seed")} for config in configs])
            found = study.table.assign(above=study.table["loss"] - study.table["optimum"])
            found = found[[*CELL, "seed", "above", "seconds"]]
            parts.append(asked.merge(found, how="left").assign(variant=variant).fillna({"above": float("inf")}))
    return pd.concat(parts, ignore_index=True)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant and cell, over the seeds."""
    columns = {"worst": ("above", "max"), "median": ("above", "median"), "best": ("above", "min")}
    cells = runs.groupby(["variant", *CELL], sort=False)
    return cells.agg(seeds=("seed", "size"), **columns, seconds=("seconds", "median")).reset_index()


def figure(runs: pd.DataFrame) -> Figure:
    """Every seed's distance from the limit, a line for each variant."""
    names = list(dict.fromkeys(runs["variant"]))
    result = Figure(figsize=(7.0, 1.0 + 0.5 * len(names)), layout="constrained")
    axes = result.subplots()
    for i, (cell, own) in enumerate(runs.groupby(CELL, sort=False)):
        at = [names.index(variant) + 0.18 * i for variant in own["variant"]]
        # Below the quadrature's own error a distance says nothing more.
        axes.plot(
            own["above"].clip(lower=1e-8),
            at,
            ls="none",
            marker=MARKERS[i % len(MARKERS)],
            ms=4,
            alpha=0.7,
            color=PALETTE[i % len(PALETTE)],
            label=named(*cell),
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="exact loss above the limit (nats)")
    axes.grid(axis="x", color=LIGHT)
    legend(result, loc="outside lower center", ncols=2)
    return result


def answer(table: pd.DataFrame) -> Iterator[str]:
    """Which parts matter most, in a sentence."""
    worst = table.pivot(index="variant", columns=CELL, values="worst")
    ratios = (worst / worst.loc[WHOLE]).max(axis=1).drop(WHOLE).sort_values(ascending=False)
    parts = ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items())
    yield f"The worst seed's distance from the limit, as a multiple of the default's (the largest over cells): {parts}."


def main(args: argparse.Namespace) -> None:
    runs = measure(args)
    table = summarise(runs)
    write(args, "ablation", table, figure(runs), answer(table))


def cell_of(text: str) -> tuple[int, int, float]:
    """Layers, ndims and probability: ``2/5`` or ``1/1000/0.05``."""
    layers, ndims, *prob = text.split("/")
    return int(layers), int(ndims), float(prob[0]) if prob else 0.5


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, "ablation", seeds=10)
    parser.add_argument("--preset", default=WHOLE, choices=[WHOLE, "thorough"], help="whose parts")
    names = list(variants(2, WHOLE))
    parser.add_argument("--variants", nargs="+", default=names, choices=names, help="which, beside the whole recipe")
    cells = [cell_of(text) for text in ("2/5", "2/1000", "1/1000/0.05", "1/10000")]
    parser.add_argument("--cells", type=cell_of, nargs="+", default=cells, help="layers/ndims, or layers/ndims/prob")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
