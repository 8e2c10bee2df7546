"""What does it cost that one encoder serves all codewords? The amortisation gap, which two codewords do not have.

    python analysis/amortisation.py

The part of KL(q(z|x) ‖ p(z|x)) that a Gaussian for each codeword alone would save (`diagnostics.gap_split`), for
one-layer runs from random weights (the analytic start places each codeword by itself, and leaves nothing to amortise):
against the number of codewords, the width of the encoder's hidden layers, the decoder's staying as it is, and the steps
of the training, each with the others as they are by default. Least, median and most over the seeds, nats; ``error`` is
by how much a gap may be wrong: what the quadrature of a finer grid changes, and how far apart two searches for the best
Gaussian ended, the most over the seeds. Writes ``amortisation.csv`` and ``amortisation.png``, prints the table and the
answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from codebooks import judged
from common import parser_of, tell, trained, write
from matplotlib.figure import Figure

from pyro_onebit import Config, Run, diagnostics, exact, register_guide
from pyro_onebit.guides import GaussianGuide
from pyro_onebit.nn import Architecture
from pyro_onebit.plots import GREY, LIGHT, PALETTE

TITLES = {
    "codewords": "codewords $M$",
    "width": "width of the encoder's hidden layers",
    "steps": "steps of the training",
}


def encoder_of(width: int) -> str:
    """The name of the Gaussian guide whose hidden layers have a width, which it registers."""

    @register_guide(f"encoder{width}")
    class EncoderGuide(GaussianGuide):
        def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
            super().__init__(ndims, prob, replace(arch, width_x=width))

    return f"encoder{width}"


def figures_of(run: Run) -> dict[str, float]:
    """The amortisation gap, by how much it may be wrong, and the loss above the optimum; nats per datum."""
    tell(f"n = {run.config.ndims}, guide {run.config.guide}, seed {run.config.seed}: splitting the gap")
    truth = judged(run)
    joint = exact.solve_joint(run.model, run.guide, run.data, truth)
    split = diagnostics.gap_split(run.model, run.guide, run.data, truth, joint)
    return {
        "gap": float(truth.probs @ split.amortisation),
        "error": truth.errors["kl_posterior"] + float(truth.probs @ split.spread),
        "above": run.metrics["loss"] - run.metrics["optimum"],
    }


def configs_of(args: argparse.Namespace, seed: int) -> dict[tuple[str, int], Config]:
    """A configuration for each value of what is varied."""

    def config(bits: int = args.bits, guide: str | None = None, steps: int | None = args.steps) -> Config:
        return Config(ndims=args.repeat * bits, bits=bits, guide=guide, steps=steps, seed=seed)

    found = {("codewords", 2**bits): config(bits) for bits in range(1, args.most + 1)}
    usual = Config().recipe.arch.width_x
    found |= {("width", width): config(guide=encoder_of(width) if width != usual else None) for width in args.widths}
    trainings = sorted({min(steps, args.steps or steps) for steps in args.trainings})
    return found | {("steps", steps): config(steps=steps) for steps in trainings}


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each thing that is varied."""
    kinds = list(dict.fromkeys(table["varied"]))
    figure = Figure(figsize=(3.5 * len(kinds), 3.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
        own = table[table["varied"] == kind]
        axes.fill_between(
            own["value"], own["least"], own["most"], color=PALETTE[0], alpha=0.2, lw=0.0, label="all runs"
        )
        axes.plot(own["value"], own["median"], "o-", color=PALETTE[0], label="median")
        axes.plot(own["value"], own["error"], ":", color=GREY, label="numerical error")
        axes.set(xscale="log", yscale="log", xlabel=TITLES[kind])
        axes.set_xticks(own["value"], [str(value) for value in own["value"]])
        axes.minorticks_off()
        axes.grid(color=LIGHT)
    figure.axes[0].set_ylabel("amortisation gap (nats)")
    figure.axes[0].legend(frameon=False)
    return figure


def answer(table: pd.DataFrame) -> Iterator[str]:
    """By how much the gap grows or shrinks along each, and whether it is more than its error."""
    for kind, own in table.groupby("varied", sort=False):
        first, last = own.iloc[0], own.iloc[-1]
        what = TITLES[str(kind)].replace("$", "")
        yield (
            f"With {what} from {first['value']} to {last['value']} the median amortisation gap goes from "
            f"{first['median']:.2g} to {last['median']:.2g} nats."
        )
    several = table[(table["varied"] != "codewords") | (table["value"] > 2)]
    yield (
        f"Of more than two codewords it is at least {several['least'].min():.2g} nats in every run, and wrong by at "
        f"most {several['error'].max():.2g}."
    )


def main(args: argparse.Namespace) -> None:
    cells = [(cell, config) for seed in args.seeds for cell, config in configs_of(args, seed).items()]
    found = {run.config: figures_of(run) for run in trained((config for _, config in cells), args)}
    rows = [{"varied": kind, "value": value, **found[config]} for (kind, value), config in cells if config in found]
    gaps = {"runs": ("gap", "size"), "least": ("gap", "min"), "median": ("gap", "median"), "most": ("gap", "max")}
    others = {"error": ("error", "max"), "loss above optimum": ("above", "median")}
    table = pd.DataFrame(rows).groupby(["varied", "value"], sort=False).agg(**gaps, **others).reset_index()
    write(args, "amortisation", table, draw(table), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(
        __doc__,
        "amortisation",
        repeat=5,
        bits=3,
        most=3,
        widths=(2, 4, 10, 32),
        trainings=(300, 1000, 3000),
        seeds=tuple(range(10)),
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
