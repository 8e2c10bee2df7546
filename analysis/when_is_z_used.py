"""Where does z switch on? Mutual information against the number of dimensions, and during training.

    python analysis/when_is_z_used.py

I(x; z_top) and KL(q(z_top) ‖ p(z_top)), which sum to E KL(q(z_top|x) ‖ p(z_top)), of trained runs by quadrature;
the dashed line is the best that any decoder can do with a Gaussian q(z1|x), which needs no training. And both
during a training from a start in which z carries nothing. Writes ``when_is_z_used.csv`` and
``when_is_z_used.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from common import obtain, parser_of_looks, spaced, tell, write
from matplotlib.figure import Figure

from pyro_onebit import Config, OneBitData, Run, build, exact, fit
from pyro_onebit.plots import DARK, GREY, LAYER_COLOURS, LAYER_NAMES, LIGHT, legend, ndims_axis

FIGURES = ("loss", "mutual_information", "kl_aggregate")


def optimal_information(ndims: int, prob: float) -> float:
    """I(x; z1) of the best Gaussian q under its best decoder: the entropy less H(X|Z), its recon a dimension."""
    return OneBitData(ndims, prob).entropy - exact.gaussian_optimum(ndims, prob).recon / ndims


def row_of(run: Run) -> dict[str, Any]:
    """What a run's latent carries, and what it would at the optimum."""
    figures = exact.evaluate(run.model, run.guide, run.data)
    best = optimal_information(run.data.ndims, run.data.prob) if run.config.layers == 1 else None
    whose = {"layers": run.config.layers, "ndims": run.data.ndims}
    return {**whose, **{name: figures[name] for name in FIGURES}, "optimal_information": best}


def follow(config: Config, points: int = 40) -> dict[str, list[float]]:
    """The exact figures at steps of a training, evenly spaced on a log scale."""
    steps = set(spaced(config.recipe.steps, points))
    model, guide, data = build(config)
    trace: dict[str, list[float]] = {name: [] for name in ("step", *FIGURES)}

    def look(step: int) -> None:
        if step + 1 in steps:
            figures = exact.evaluate(model, guide, data)
            trace["step"].append(step + 1)
            for name in FIGURES:
                trace[name].append(figures[name])

    fit(model, guide, data, config, on_step=look)
    return trace


def draw(rows: Sequence[dict[str, Any]], prob: float, trace: dict[str, list[float]], config: Config) -> Figure:
    """Left: against ndims. Right: against training time."""
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    sizes, times = figure.subplots(1, 2)
    for layers in sorted({row["layers"] for row in rows}):
        own = [row for row in rows if row["layers"] == layers]
        for name, style, what in (("mutual_information", "o-", "$I(x; z)$"), ("kl_aggregate", "s:", "aggregate KL")):
            label = f"{what}, {LAYER_NAMES[layers]}"
            sizes.plot(
                [r["ndims"] for r in own], [r[name] for r in own], style, ms=4, color=LAYER_COLOURS[layers], label=label
            )
    largest = max(row["ndims"] for row in rows)
    ndims = spaced(max(largest, 2), 24)
    best = [optimal_information(n, prob) for n in ndims]
    sizes.plot(ndims, best, color=DARK, ls="--", lw=1.2, label="$I(x; z_1)$ at the optimum, Gaussian $q$")
    colour = LAYER_COLOURS[config.layers]
    times.plot(trace["step"], trace["mutual_information"], color=colour)
    times.plot(trace["step"], trace["kl_aggregate"], color=colour, ls=":")
    times.set_title(f"{LAYER_NAMES[config.layers]}, $n = {config.ndims}$, during training")
    sizes.set(ylabel="nats", title="after training")
    times.set(xlabel="step", ylabel="nats")
    for axes in (sizes, times):
        axes.axhline(OneBitData(1, prob).entropy, color=GREY, ls=":", label="the data's entropy")
        axes.set(ylim=(-0.02, None))
    ndims_axis(sizes)
    times.set_xscale("log")
    times.grid(color=LIGHT)
    legend(figure, loc="outside lower center", ncols=3)
    return figure


def answer(rows: Sequence[dict[str, Any]], prob: float, trace: dict[str, list[float]]) -> Iterator[str]:
    """Where each number of layers begins to use its latent, and when."""
    for layers in sorted({row["layers"] for row in rows}):
        own = [row for row in rows if row["layers"] == layers]
        used = [row for row in own if row["mutual_information"] > 0.1]
        unused = [f"{row['mutual_information']:.4f} nats at n = {row['ndims']}" for row in own if row not in used]
        on = (
            f"is used from n = {used[0]['ndims']} on ({used[0]['mutual_information']:.3f} nats)"
            if used
            else "is unused"
        )
        off = f"; it carries {', '.join(unused)}" if unused else ""
        yield f"{LAYER_NAMES[layers]}: z {on}{off}."
    seen = zip(trace["step"], trace["mutual_information"], strict=True)
    half = [step for step, value in seen if value > 0.5 * OneBitData(1, prob).entropy]
    when = f"holds half the entropy from step {half[0]:.0f} on" if half else "never holds half the entropy"
    yield f"From a start in which it carries nothing, z {when}."


def main(args: argparse.Namespace) -> None:
    runs = obtain(args)
    rows = [row_of(run) for run in runs]
    config = Config(ndims=args.followed, seed=args.seed, prob=args.prob, preset="reference", steps=args.steps)
    tell(f"following a training, n = {config.ndims}")
    trace = follow(config)
    prob = runs[0].data.prob
    write(args, "when_is_z_used", rows, draw(rows, prob, trace, config), answer(rows, prob, trace))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    ndims = (1, 2, 3, 5, 10, 30, 100, 1000)
    parser = parser_of_looks(__doc__, "when_is_z_used", ndims=ndims)
    parser.add_argument("--followed", type=int, default=5, metavar="NDIMS", help="dimensions of the training followed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
