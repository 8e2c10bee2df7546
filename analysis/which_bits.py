"""Which bits does a latent hold, alone and in company?

    python analysis/which_bits.py

A bit that is repeated r times, beside others that are repeated more often: I(x_j; z), what z says of it (nats, at most
ln 2), for the best Gaussian q(z1|x) under its best decoder (`exact.gaussian_optimum`), and for trained runs, of which
the median over seeds is drawn. Writes ``which_bits.csv`` and ``which_bits.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from codebooks import best_programs, judged, repeats_of, train
from common import parser_of, write
from matplotlib.figure import Figure

from pyro_onebit import BitsData, Config, exact
from pyro_onebit.data import words_of
from pyro_onebit.plots import GREY, LIGHT, PALETTE

#: Of a bit that counts as held: a tenth of what there is to hold.
HELD = 0.1 * math.log(2.0)


def information(truth: exact.Truth, bits: int) -> list[float]:
    """I(x_j; z) of each bit, nats."""
    return [truth.information(bit) for bit in zip(*words_of(bits), strict=True)]


def row_of(company: tuple[int, ...], repeats: int, args: argparse.Namespace) -> dict[str, Any]:
    """What the best Gaussian, and trained runs, hold of the last bit and of all."""
    data = BitsData((*company, repeats))
    best = exact.gaussian_optimum(data)
    own = information(exact.solve(*best_programs(data, best), data), data.bits)
    row = {"company": " ".join(map(str, company)) or "alone", "repeats": repeats, "optimum": best.loss}
    row |= {"held": own[-1], "of others": " ".join(f"{value:.4f}" for value in own[:-1])}
    if repeats in args.trained:
        configs = [Config(repeats=data.repeats, seed=seed, steps=args.steps) for seed in args.seeds]
        learned = [
            information(judged(run), data.bits)[-1] for run in train(configs, args, f"{row['company']}, {repeats}")
        ]
        row |= {"learned": pd.Series(learned).median(), "least": min(learned), "most": max(learned)}
    return row


def draw(table: pd.DataFrame) -> Figure:
    """A curve for each company."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, (company, own) in enumerate(table.groupby("company", sort=False)):
        label = "alone" if company == "alone" else f"beside {' and '.join(company.split())} repeats"
        axes.plot(own["repeats"], own["held"], "-", color=PALETTE[i], label=label)
        trained = own.dropna(subset=["learned"])
        errors = [trained["learned"] - trained["least"], trained["most"] - trained["learned"]]
        axes.errorbar(trained["repeats"], trained["learned"], errors, fmt="o", ms=5, capsize=3, color=PALETTE[i])
    axes.axhline(math.log(2.0), color=GREY, ls=":", label=r"$\ln 2$, all of it")
    axes.errorbar([], [], [], fmt="o", ms=5, color="0.3", label="learned: median, least, most")
    axes.set(xscale="log", xlabel="dimensions in which the bit is repeated", ylabel="what z says of the bit (nats)")
    axes.set_xticks(sorted(set(table["repeats"])), [f"{r}" for r in sorted(set(table["repeats"]))])
    axes.minorticks_off()
    axes.grid(color=LIGHT)
    axes.legend(frameon=False, loc="lower right")
    return figure


def answer(table: pd.DataFrame) -> str:
    """From how many repeats on a bit is held."""
    sentences = []
    for company, own in table.groupby("company", sort=False):
        held = own[own["held"] > HELD]
        where = "alone" if company == "alone" else f"beside bits of {company} repeats"
        first = f"from {held['repeats'].iloc[0]} repeats on" if len(held) else "never"
        of = f" ({held['held'].iloc[0]:.3f} nats)" if len(held) else ""
        sentences.append(f"A bit {where} is held {first}{of}.")
    return " ".join(sentences)


def main(args: argparse.Namespace) -> None:
    """Search, train, draw, answer."""
    companies = [() if text == "alone" else repeats_of(text) for text in args.company]
    table = pd.DataFrame([row_of(company, repeats, args) for company in companies for repeats in args.repeats])
    for name in ("learned", "least", "most"):
        table[name] = table.get(name)
    write(args, "which_bits", table, draw(table), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of(
        __doc__,
        "which_bits",
        company=("alone", "50", "50,5"),
        repeats=(1, 2, 3, 4, 5, 7, 10),
        trained=(1, 2, 5),
        seeds=tuple(range(10)),
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
