"""Why is the two-layer model's kl1 negative, and what happens if z1 is drawn anew?

    python analysis/negative_kl1.py
    python analysis/negative_kl1.py --run results/runs/layers2-ndims001000-two_layer-stl-seed0

kl1 = E KL(q(z1|z2,x) ‖ p(z1|z2)) - I(z1; z2 | x) and kl2 = E KL(q(z2|x) ‖ p(z2)) + I(z1; z2 | x): each part
by quadrature. Then the same models are trained with z1 drawn anew, given x, for the second of its densities,
so that both terms no longer see the same z1. Writes ``negative_kl1.csv`` and ``negative_kl1.png``, prints the
table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from common import obtain, parser_of_looks, tell, write
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine import Trace

from pyro_onebit import Config, Run, build, diagnostics, exact, fit, register_objective
from pyro_onebit.plots import DARK, GREY, LIGHT, PALETTE
from pyro_onebit.training import AdjustedTraces

PARTS = ("kl_lower", "latents_information", "kl_top")
LABELS = {
    "kl_lower": r"$\mathrm{KL}(q(z_1|z_2,x)\,\|\,p(z_1|z_2))$",
    "latents_information": r"$I(z_1; z_2\,|\,x)$",
    "kl_top": r"$\mathrm{KL}(q(z_2|x)\,\|\,p(z_2))$",
}
COLOURS = {"kl_lower": GREY, "latents_information": PALETTE[1], "kl_top": PALETTE[0]}


@register_objective("redrawn", recorded=True)
class RedrawnELBO(AdjustedTraces, Trace_ELBO):
    """The ELBO's mistake: q(z2|z1) is given a z1 of its own."""

    def adjust(
        self, model: Any, guide: Any, traces: tuple[Trace, Trace], args: Any, kwargs: Any
    ) -> tuple[Trace, Trace]:
        """The traces with a z2 that was drawn together with another z1."""
        _, first = traces
        _, second = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        first.nodes["z2"] = second.nodes["z2"]
        model_trace = poutine.trace(poutine.replay(model, trace=first)).get_trace(*args, **kwargs)
        model_trace.compute_log_prob()
        return model_trace, first


def retrain(config: Config) -> Run:
    """The same run, with z1 drawn anew for z2."""
    changed = replace(config, objective="redrawn")
    tell(f"n = {config.ndims}: training with z1 drawn anew")
    return fit(*build(changed), changed, quiet=False)


def row_of(run: Run, drawn: str) -> dict[str, Any]:
    """The parts of a run's KL terms, exact."""
    figures = exact.evaluate(run.model, run.guide, run.data)
    joint = exact.solve_joint(run.model, run.guide, run.data, figures.truth)
    parts = diagnostics.surgery(figures.truth, joint)
    columns = ("kl1", "kl2", *PARTS, "kl1_redrawn", "mutual_information")
    return {"ndims": run.data.ndims, "z1": drawn, "loss": figures["loss"], **{name: parts[name] for name in columns}}


def draw(rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[Run, Run]]) -> Figure:
    """Left: how kl1 and kl2 are made up. Right: both during training, with z1 kept and drawn anew."""
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    for place, row in enumerate(rows):
        information, width = row["latents_information"], 0.36
        for shift, name, own, sign in ((-0.2, "kl1", "kl_lower", -1.0), (0.2, "kl2", "kl_top", 1.0)):
            at = place + shift
            hatch = "///" if own == "kl_lower" else None  # as light as its neighbour, to grey readers
            bars.bar(at, row[own], width, color=COLOURS[own], hatch=hatch, edgecolor="w", lw=0, label=LABELS[own])
            stacked = row[own] if sign > 0 else 0.0
            colour, label = COLOURS["latents_information"], LABELS["latents_information"]
            bars.bar(at, sign * information, width, bottom=stacked, color=colour, label=label)
            bars.hlines(row[name], at - 0.5 * width, at + 0.5 * width, color=DARK, lw=2, label="their sum")
            top = row[own] + (information if sign > 0 else 0.0)
            bars.annotate(name, (at, top), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=9)
    bars.axhline(0.0, color=DARK, lw=0.8)
    bars.set_xticks(range(len(rows)), [f"$n = {row['ndims']}$\n$z_1$ {row['z1']}" for row in rows], fontsize=8)
    bars.set_ylabel("nats")
    bars.margins(y=0.12)
    for pair in pairs:
        for run, style in zip(pair, ("-", "--"), strict=True):
            drawn = "kept" if style == "-" else "drawn anew"
            for name, colour in (("kl1", PALETTE[1]), ("kl2", PALETTE[0])):
                label = f"{name}, $z_1$ {drawn}"
                curves.plot(run.history["step"], run.history[name], color=colour, ls=style, lw=1.3, label=label)
    curves.axhline(0.0, color=DARK, lw=0.8)
    first = max(pair[0].config.recipe.first_steps for pair in pairs)
    curves.axvline(first, color=GREY, ls=":", label="both layers from here on")
    # z1 drawn anew starts thousands of nats away.
    curves.set(xlabel="step", ylabel="nats, as the training sees them", yscale="symlog")
    for axes in (bars, curves):
        axes.grid(axis="y", color=LIGHT)
        axes.set_axisbelow(True)
        handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
        axes.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, **place)
    return figure


def answer(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Two sentences, about the largest ndims."""
    ndims = max(row["ndims"] for row in rows)
    kept, anew = (next(r for r in rows if (r["ndims"], r["z1"]) == (ndims, z1)) for z1 in ("kept", "drawn anew"))
    yield (
        f"n = {ndims}: kl1 is {kept['kl1']:.3f} because it holds minus the {kept['latents_information']:.3f} nats that "
        f"z1 and z2 tell of each other, against a KL of {kept['kl_lower']:.4f}; kl2 holds the same nats with a plus, "
        f"and their sum, {kept['kl1'] + kept['kl2']:.4f}, is never negative. With z1 drawn anew kl1 would be "
        f"{kept['kl1_redrawn']:.1f} at the same parameters. Trained so, z1 and z2 can no longer afford to tell of each "
        f"other: {anew['latents_information']:.3f} nats are left, I(x; z2) is {anew['mutual_information']:.3f}, and "
        f"the true loss ends at {anew['loss']:.3f} instead of {kept['loss']:.3f}."
    )


def main(args: argparse.Namespace) -> None:
    pairs = [(run, retrain(run.config)) for run in obtain(args) if run.config.layers == 2]
    rows = [row_of(run, drawn) for pair in pairs for run, drawn in zip(pair, ("kept", "drawn anew"), strict=True)]
    write(args, "negative_kl1", rows, draw(rows, pairs), answer(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    return parser_of_looks(__doc__, "negative_kl1", ndims=(5, 1000), layers=(2,)).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
