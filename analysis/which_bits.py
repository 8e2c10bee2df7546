"""Which bits does a latent hold, alone and in company?

    python analysis/which_bits.py

A bit that is repeated r times, beside others that are repeated more often: I(x_j; z), what z says of it (nats, at most
ln 2), for the best Gaussian q(z1|x) under its best decoder (`exact.gaussian_optimum`), and for runs that are trained
from random weights. Writes ``which_bits.csv``, ``runs.csv`` (a row per run) and ``which_bits.png``, prints the table
and the answer.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from codebooks import best_programs, judged, repeats_of
from common import parser_of, trained, write
from matplotlib.figure import Figure

from pyro_onebit import BitsData, Config, exact
from pyro_onebit.data import words_of
from pyro_onebit.files import write_table
from pyro_onebit.plots import DARK, GREY, LIGHT, PALETTE

#: Of a bit that counts as held: a tenth of what there is to hold.
HELD = 0.1 * math.log(2.0)
#: Light enough for dots on them.
COLOURS = (PALETTE[0], PALETTE[1], PALETTE[3], PALETTE[7])


def information(truth: exact.Truth, bits: int) -> list[float]:
    """I(x_j; z) of each bit, nats."""
    return [truth.information(bit) for bit in zip(*words_of(bits), strict=True)]


def best_of(data: BitsData) -> dict[str, Any]:
    """What the best Gaussian holds of the last bit, and of the others."""
    best = exact.gaussian_optimum(data)
    own = information(exact.solve(*best_programs(data, best), data), data.bits)
    return {"optimum": best.loss, "held": own[-1], "of others": " ".join(f"{value:.4f}" for value in own[:-1])}


def learned(data: BitsData, args: argparse.Namespace) -> list[float]:
    """What trained runs hold of the last bit."""
    configs = [Config(repeats=data.repeats, seed=seed, steps=args.steps) for seed in args.seeds]
    runs = trained(configs, args, f"repeats {' '.join(map(str, data.repeats))}")
    return [information(judged(run), data.bits)[-1] for run in runs]


def where(company: str) -> str:
    """Where a bit is."""
    return "alone" if company == "alone" else f"beside bits of {' and '.join(company.split())} repeats"


def draw(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """A bar for each company of each bit: what the best Gaussian holds, and over it a dot for each run."""
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.subplots()
    places = sorted(set(table["repeats"]))
    companies = list(dict.fromkeys(table["company"]))
    width = 0.8 / len(companies)
    for i, company in enumerate(companies):
        shift = (i - 0.5 * (len(companies) - 1)) * width
        own = table[table["company"] == company]
        at = [places.index(repeats) + shift for repeats in own["repeats"]]
        axes.bar(at, own["held"].clip(lower=0.0), 0.94 * width, color=COLOURS[i % len(COLOURS)], label=where(company))
        seen = runs[runs["company"] == company]
        spread = 0.7 * width * (seen["seed"].rank(method="dense") / max(1, seen["seed"].nunique()) - 0.5)
        place = [places.index(repeats) + shift for repeats in seen["repeats"]] + spread
        axes.plot(place, seen["held"], "o", ms=3, color=DARK, label="a run" if not i else None)
    axes.axhline(math.log(2.0), color=GREY, ls=":", label=r"$\ln 2$, all of it")
    axes.set(
        xlabel="dimensions in which the bit is repeated", ylabel="what z says of the bit (nats)", ylim=(-0.02, 0.75)
    )
    axes.set_xticks(range(len(places)), [str(repeats) for repeats in places])
    axes.grid(axis="y", color=LIGHT)
    axes.set_axisbelow(True)
    figure.legend(frameon=False, loc="outside upper center", ncols=3, title="bars: the best Gaussian $q(z_1|x)$")
    return figure


def answer(table: pd.DataFrame) -> Iterator[str]:
    """From how many repeats on a bit is held, by the best Gaussian and by runs."""
    for company, own in table.groupby("company", sort=False):
        held = own[own["held"] > HELD]
        if not len(held):
            yield f"A bit {where(str(company))} is never held."
            continue
        first = held.iloc[0]
        text = f"A bit {where(str(company))} is held from n = {first['repeats']} on ({first['held']:.3f} nats"
        if first["learned"] == first["learned"]:
            text += f"; runs {first['least']:.3f} to {first['most']:.3f}, their median {first['learned']:.3f}"
        yield f"{text})."


def main(args: argparse.Namespace) -> None:
    rows, runs = [], []
    for text in args.company:
        company = () if text == "alone" else repeats_of(text)
        for repeats in args.repeats:
            data = BitsData((*company, repeats))
            row = {"company": " ".join(map(str, company)) or "alone", "repeats": repeats, **best_of(data)}
            found = learned(data, args) if repeats in args.trained else []
            runs += [{**row, "seed": seed, "held": held} for seed, held in enumerate(found)]
            seen = pd.Series(found, dtype=float)
            rows.append(row | {"learned": seen.median(), "least": seen.min(), "most": seen.max()})
    table, each = pd.DataFrame(rows), pd.DataFrame(runs, columns=["company", "repeats", "seed", "held"])
    write_table(args.out / "runs.csv", each)
    write(args, "which_bits", table, draw(table, each), answer(table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
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
