"""Which objective trains best, and how noisy is each one's gradient, for the model and the guide, as K grows?

    python analysis/compare_objectives.py                       # about ten minutes on two cores
    python analysis/compare_objectives.py --ndims 5 --particles 1 8

Each objective trains a Gaussian guide, all by the reference preset's recipe: rows with K independent samples each, as
the default's lattice is only for means over samples. What is trained for is not always the ELBO (``beta``,
``annealed`` and ``free_bits`` change its KL term, the bounds are of K samples), but the runs are judged on the exact
ELBO, on the exact evidence, and on the exact importance-weighted bound of their own K. Then, at one fixed, half-trained
model and guide, each one's gradient is estimated again and again: its variance and signal-to-noise ratio.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from common import parser_of, tell, trained, write
from matplotlib.figure import Figure

from pyro_onebit import OBJECTIVES, Config, OneBitData, Run, build, exact, fit
from pyro_onebit.diagnostics import gradient_noise
from pyro_onebit.files import write_table
from pyro_onebit.plots import LIGHT, PALETTE
from pyro_onebit.studies import StudyGrid

#: Those that are brought are grey.
COLOURS = dict.fromkeys(OBJECTIVES, "0.6")
COLOURS |= dict(zip(OBJECTIVES, (PALETTE[i] for i in (6, 4, 0, 3, 1, 2, 5, 7)), strict=False))


def main(args: argparse.Namespace) -> None:
    rows, noise = reached(args), noises(args)
    write_table(args.out / "gradient_noise.csv", pd.DataFrame(noise))
    write(args, "compare_objectives", rows, draw(rows, noise), answer(rows, noise))


def reached(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What each objective has reached, over the seeds: the worst loss, otherwise medians."""
    rows = []
    for objective in args.objectives:
        for k in args.particles:
            if k < OBJECTIVES[objective].fewest:
                continue
            common: dict[str, Any] = {"preset": "reference", "steps": args.steps, "particles": k}
            names: dict[str, Any] = {"guides": (args.guide,), "objectives": (objective,)}
            configs = StudyGrid(tuple(args.ndims), seeds=tuple(args.seeds), **names, **common).configs()
            runs = trained(configs, args, f"{objective}, K = {k}")
            own = pd.DataFrame([run.metrics for run in runs], columns=["loss", "log_evidence", "seconds"])
            rows.append(
                {
                    "objective": objective,
                    "K": k,
                    "seeds": len(own),
                    "worst_loss": own["loss"].max(),
                    "loss": own["loss"].median(),
                    "minus_log_evidence": -own["log_evidence"].median(),
                    "minus_bound": -float(np.median([exact_bound(run, k) for run in runs])),
                    "seconds": own["seconds"].median(),
                }
            )
    return rows


def exact_bound(run: Run, k: int) -> float:
    """What the importance-weighted bound of K samples is expected to be, nats per datum."""
    programs = (run.model, run.guide, run.data)
    law = exact.solve_joint(*programs, exact.solve(*programs)).law
    return float(law.probs @ law.expected_bound([k])[0])


def noises(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The noise of each objective's gradient at one half-trained model and guide."""
    config = Config(ndims=args.ndims[0], preset="reference", guide=args.guide, steps=min(args.half_trained, args.steps))
    run = fit(*build(config), config)
    rows = []
    for objective in args.objectives:
        tell(f"{objective}: its gradient's noise")
        for k in args.noise_particles:
            if k >= OBJECTIVES[objective].fewest:
                parts = gradient_noise(run.model, run.guide, run.data, objective, k, repeats=args.repeats)
                for part, moments in parts.items():
                    figures = {"variance": moments.total_variance, "snr": moments.signal_to_noise}
                    figures |= {"is_told": moments.is_told}
                    rows.append({"objective": objective, "K": k, "part": part, **figures})
    return rows


def draw(rows: Sequence[dict[str, Any]], noise: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    panels: Any = figure.subplots(1, 3)
    for objective, colour in COLOURS.items():
        own = [row for row in rows if row["objective"] == objective]
        style: dict[str, Any] = {"color": colour, "marker": "o", "ms": 4, "label": objective}
        entropy = OneBitData(1).entropy
        panels[0].plot([row["K"] for row in own], [row["loss"] - entropy for row in own], **style)
        evidence = [row["minus_log_evidence"] - entropy for row in own]
        panels[0].plot([row["K"] for row in own], evidence, **{**style, "label": None, "ls": "--", "mfc": "none"})
        for axes, part in zip(panels[1:], ("model", "guide"), strict=True):
            there = [row for row in noise if (row["objective"], row["part"]) == (objective, part)]
            # What cannot be told from zero is hollow.
            for is_told, more in ((True, {}), (False, {"mfc": "none", "ls": "none"})):
                seen = [row for row in there if row["is_told"] == is_told and row["snr"] > 0]
                axes.plot([row["K"] for row in seen], [row["snr"] for row in seen], **{**style, **more})
    panels[0].set(xscale="log", yscale="log", xlabel="samples $K$", ylabel="above the entropy (nats)")
    panels[0].set_title("trained: loss (solid), $-\\log p(x)$ (dashed)")
    for axes, part in zip(panels[1:], ("model", "guide"), strict=True):
        scale = "log" if any(row["snr"] > 0 for row in noise if row["part"] == part) else "linear"
        axes.set(xscale="log", yscale=scale, xlabel="samples $K$", title=f"gradient of the {part}")
        axes.set_ylabel("signal-to-noise ratio (hollow: cannot be told from 0)")
    for axes in panels:
        axes.grid(color=LIGHT)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def answer(rows: Sequence[dict[str, Any]], noise: Sequence[dict[str, Any]]) -> Iterator[str]:
    best = min(rows, key=lambda row: row["worst_loss"])
    likely = min(rows, key=lambda row: row["minus_log_evidence"])
    yield (
        f"The lowest exact loss, {best['worst_loss']:.4f} nats in the worst seed, is reached by {best['objective']} "
        f"with K = {best['K']}; the best model, by its evidence, by {likely['objective']} with K = {likely['K']} "
        f"({-likely['minus_log_evidence']:.4f}), at a loss of {likely['loss']:.4f}."
    )
    for part in ("model", "guide"):
        slopes, lost = [], []
        for objective in COLOURS:
            own = [row for row in noise if (row["objective"], row["part"]) == (objective, part)]
            told = [row for row in own if row["is_told"]]
            if len(told) > 2:
                slope = np.polyfit(np.log([row["K"] for row in told]), np.log([row["snr"] for row in told]), 1)[0]
                slopes.append(f"{objective} K^{slope:.2f}")
            lost += [f"{objective} at K = {row['K']}" for row in own if not row["is_told"]]
        if slopes:
            yield f"The {part}'s signal-to-noise ratio grows as {', '.join(slopes)}."
        if lost:
            yield f"Cannot be told from zero: {', '.join(lost)}."


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, "compare_objectives", guide="gaussian", ndims=[5], seeds=list(range(5)))
    parser.set_defaults(steps=2000)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 8, 32], help="K of the training")
    parser.add_argument(
        "--noise-particles", type=int, nargs="+", default=[2**k for k in range(10)], help="K of the gradients"
    )
    parser.add_argument("--repeats", type=int, default=500, help="estimates of each gradient")
    parser.add_argument("--half-trained", type=int, default=300, help="steps before gradients are looked at")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
