"""How fast do importance-weighted bounds close, and what do k̂ and ESS say while they do not?

    python analysis/iwae_bounds.py
    python analysis/iwae_bounds.py --run results/runs/layers1-ndims000100-gaussian-elbo-seed0

The gap log p(x) - E[IWAE_K] to K = 1,000,000 without noise, by quadrature over the law of the weights;
beside it sampled bounds, their effective sample size, largest weight, and k̂. Writes ``iwae_bounds.csv``
and ``iwae_bounds.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from common import named, obtain, parser_of_looks, spaced, tell, write
from matplotlib.figure import Figure

from pyro_onebit import Run, exact
from pyro_onebit.bounds import bound_table
from pyro_onebit.diagnostics import KHAT_MINIMUM, khat, khat_threshold
from pyro_onebit.plots import DARK, LAYER_COLOURS, LAYER_NAMES, LIGHT

#: K of the curves.
CURVE = spaced(10**6, 25)
#: Of each run, by layers and ndims, what `curve` gives.
Curves = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


def curve(joint: exact.Joint) -> tuple[np.ndarray, np.ndarray]:
    """The gap averaged over the data, and k̂ of an ideal sample (the worse codeword), at each K of `CURVE`."""
    law = joint.law
    gap = (law.log_evidence - law.expected_bound(CURVE)) @ law.probs
    shapes = [float(khat(law.quantiles(k)).max()) for k in CURVE]
    return gap.numpy(), np.array(shapes)


def rows_of(run: Run, joint: exact.Joint, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each sampled K: the average over codewords, and the worse codeword's warnings."""
    programs = (run.model, run.guide, run.data)
    rows = []
    for k in args.particles:
        # Few repeats of many draws, many of few.
        repeats = max(4, args.draws // k)
        *codewords, mean = bound_table(*programs, joint, [k], repeats=repeats, seed=args.seed)
        shapes = [row["khat"] for row in codewords if row["khat"] is not None]
        rows.append(
            {
                "layers": run.config.layers,
                "ndims": run.config.ndims,
                "particles": k,
                "repeats": repeats,
                "sampled": mean["estimate"],
                "standard_error": mean["standard_error"],
                "expected": mean["expected"],
                "gap": mean["gap"],
                "ess_share": min(row["ess"] for row in codewords) / k,
                "largest_share": max(row["largest_share"] for row in codewords),
                "khat": max(shapes) if shapes else None,
                "khat_threshold": khat_threshold(k) if k >= KHAT_MINIMUM else None,
            }
        )
    return rows


def draw(rows: Sequence[dict[str, Any]], curves: Curves) -> Figure:
    """Gap, effective sample size and k̂ against K."""
    figure = Figure(figsize=(9.0, 6.6), layout="constrained")
    panels: Any = figure.subplot_mosaic([["gaps", "sizes"], ["gaps", "shapes"]])
    gaps, sizes, shapes = (panels[name] for name in ("gaps", "sizes", "shapes"))
    sizes_of = sorted({ndims for _, ndims in curves})
    styles = dict(zip(sizes_of, ("-", "--", ":", "-.") * len(sizes_of), strict=False))
    for (layers, ndims), (gap, shape) in curves.items():
        look: dict[str, Any] = {"color": LAYER_COLOURS[layers]}
        own = [row for row in rows if (row["layers"], row["ndims"]) == (layers, ndims)]
        label = f"{LAYER_NAMES[layers]}, $n = {ndims}$"
        gaps.plot(CURVE, gap, **look, ls=styles[ndims], label=label)
        ks = [row["particles"] for row in own]
        for row in own:
            gap_seen, error = row["gap"] + row["expected"] - row["sampled"], row["standard_error"]
            if gap_seen > 2.0 * error:
                gaps.errorbar(row["particles"], gap_seen, yerr=error, **look, marker="o", ms=3.5, capsize=2)
            else:
                gaps.plot(row["particles"], gap_seen + 2.0 * error, **look, marker="v", ms=5, mfc="none")
        sizes.plot(ks, [row["ess_share"] for row in own], **look, ls=styles[ndims], marker="o", ms=3.5)
        shapes.plot(CURVE, shape, **look, ls=styles[ndims])
        sampled = [(row["particles"], row["khat"]) for row in own if row["khat"] is not None]
        if sampled:
            shapes.plot(*zip(*sampled, strict=True), **look, ls="none", marker="o", ms=3.5)
    limit = [k for k in CURVE if k >= KHAT_MINIMUM]
    shapes.plot(limit, [khat_threshold(k) for k in limit], color=DARK, lw=1.2, label="largest to be trusted")
    shapes.legend(frameon=False, loc="upper left")
    # What sampling sees of the smallest gaps is far above them.
    least = max(1e-11, min(float(gap[gap > 0.0].min()) for gap, _ in curves.values()))
    gaps.set(yscale="log", ylim=(0.5 * least, 3.0), ylabel=r"$\log p(x) - \mathrm{IWAE}_K$ (nats)")
    sizes.set(ylim=(0.0, 1.02), ylabel="ESS ÷ K", title="effective sample size")
    shapes.set(ylim=(-0.2, 4.0), ylabel=r"$\hat k$")
    for axes in (gaps, sizes, shapes):
        axes.set(xscale="log", xlabel="particles $K$")
        axes.grid(color=LIGHT)
    # Where sampling sees no gap, a triangle says how large it may be.
    gaps.set_title("lines: exact; dots: sampled;\ntriangles: 2 s.e. above", fontsize=10)
    shapes.set_title("$\\hat k$; lines: an ideal sample, dots: sampled", fontsize=10)
    handles, labels = gaps.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def answer(rows: Sequence[dict[str, Any]], curves: Curves) -> Iterator[str]:
    """A sentence for each run: how the gap falls, and whether the diagnostics told."""
    for (layers, ndims), (gap, _) in curves.items():
        slope = float(np.log(gap[-1] / gap[CURVE.index(1000)]) / np.log(CURVE[-1] / 1000))
        last = [row for row in rows if (row["layers"], row["ndims"]) == (layers, ndims) and row["khat"] is not None]
        told = ""
        if last:
            row = last[-1]
            flagged = row["khat"] >= row["khat_threshold"]
            shape = "< 0" if row["khat"] < 0 else f"= {row['khat']:.2f}"
            told = (
                f" At K = {row['particles']} the gap is {row['gap']:.2g}, ESS is {row['ess_share']:.0%} of K and k̂ "
                f"{shape} {'warns' if flagged else 'does not warn'}."
            )
        exact_gap = f"{gap[0]:.4f} nats at K = 1, {gap[-1]:.1e} at 10^6, falling as K^{slope:.2f} beyond 1000"
        yield f"{named(layers, ndims)}: {exact_gap}.{told}"
    yield (
        "k̂ judges the shape of the weights' tail at one number of draws, not how much is in it: it may pass a Gaussian "
        "guide and flag a two-layer one that is far closer to the posterior, and change its mind with more draws. ESS "
        "sees the bulk; the exact gap sees both."
    )


def main(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    curves: Curves = {}
    for run in obtain(args):
        tell(f"{named(run.config.layers, run.data.ndims)}: bounds, exactly and by sampling")
        truth = exact.solve(run.model, run.guide, run.data)
        joint = exact.solve_joint(run.model, run.guide, run.data, truth)
        curves[run.config.layers, run.config.ndims] = curve(joint)
        rows += rows_of(run, joint, args)
    write(args, "iwae_bounds", rows, draw(rows, curves), answer(rows, curves))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of_looks(__doc__, "iwae_bounds", ndims=(5, 1000))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--draws", type=int, default=100_000, help="draws for each K, in repeats of K")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
