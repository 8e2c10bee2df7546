"""Is q(z|x) calibrated: too narrow, too wide, off to one side?

    python analysis/calibration.py
    python analysis/calibration.py --run results/runs/layers1-ndims000005-gaussian-elbo-seed0

Draw z from the prior and x from the decoder, and see where z lies within q(z|x): evenly spread, if q is the
posterior (variational simulation-based calibration). Beside the histogram of such levels, the exact curve for
each codeword: the posterior's distribution function against q's. Writes ``calibration.csv`` and
``calibration.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from common import named, obtain, parser_of_looks, tell, write
from matplotlib.figure import Figure
from scipy.stats import binom

from pyro_onebit import Run, exact
from pyro_onebit.diagnostics import Calibration, calibration_curve, simulate_calibration
from pyro_onebit.plots import GREY, LAYER_NAMES, codeword_colours

BINS = 20


def row_of(run: Run, truth: exact.Truth, seen: Calibration) -> dict[str, Any]:
    """What the simulation says, and the exact distances."""
    ks = truth.distances(truth.log_posterior)["ks"]
    outer = float(((seen.levels < 0.05) | (seen.levels > 0.95)).double().mean())
    return {
        "layers": run.config.layers,
        "ndims": run.data.ndims,
        "simulations": len(seen.levels),
        "ks_pvalue": seen.ks_pvalue,
        "symmetry_pvalue": seen.symmetry_pvalue,
        "outer_tenth": outer,
        "outer_tenth_exact": outer_tenth(truth),
        "no_codeword": float((seen.codeword < 0).double().mean()),
        "no_codeword_exact": 1.0 - float(truth.log_evidence.exp().sum()),
        "ks_exact_0": float(ks[0]),
        "ks_exact_1": float(ks[1]),
    }


def outer_tenth(truth: exact.Truth) -> float:
    """The exact share of levels in the outer tenth of q, on codewords as the model makes them; 0.1 if calibrated."""
    shares = [
        1.0 - float(np.diff(np.interp([0.05, 0.95], of_q, of_p))[0])
        for of_q, of_p in zip(*calibration_curve(truth), strict=True)
    ]
    return float(np.average(shares, weights=truth.log_evidence.exp()))


def draw(cases: Sequence[tuple[Run, exact.Truth, Calibration]]) -> Figure:
    """Above: the simulated levels. Below: the exact curves, less the diagonal."""
    figure = Figure(figsize=(1.0 + 3.0 * len(cases), 5.0), layout="constrained")
    panels: Any = figure.subplots(2, len(cases), sharex=True, sharey="row", squeeze=False)
    for (above, below), (run, truth, seen) in zip(panels.T, cases, strict=True):
        count = len(seen.levels)
        low, high = binom.interval(0.99, count, 1.0 / BINS)
        above.axhspan(low * BINS / count, high * BINS / count, color="0.9", label="99% of bins, if calibrated")
        above.hist(seen.levels, np.linspace(0, 1, BINS + 1), density=True, color=GREY, label="simulated")
        above.set_title(f"{LAYER_NAMES[run.config.layers]}, $n = {run.data.ndims}$")
        of_q, of_p = calibration_curve(truth)
        for codeword, colour in enumerate(codeword_colours(truth)):
            label = rf"exact, $x{{=}}\mathbf{{{codeword}}}$"
            below.plot(of_q[codeword], of_p[codeword] - of_q[codeword], color=colour, label=label)
        below.axhline(0.0, color=GREY, lw=0.8)
        below.set_xlabel(r"level $F_q(z\,|\,x)$")
    panels[0, 0].set_ylabel("density of levels")
    panels[1, 0].set_ylabel("$F_p - F_q$")
    panels[0, 0].legend(frameon=False, fontsize=8, loc="upper center")
    panels[1, 0].legend(frameon=False, fontsize=8)
    return figure


def answer(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each run."""
    for row in rows:
        if row["ks_pvalue"] > 0.01:
            verdict = "no sign that q is not calibrated"
        else:
            shape = "too narrow" if row["outer_tenth"] > 0.1 else "too wide"
            verdict = (
                f"q is {shape}: {row['outer_tenth']:.0%} of the levels lie in its outer tenth (on the codewords alone, "
                f"exactly, {row['outer_tenth_exact']:.1%}; on other rows no guide was trained)"
            )
        yield (
            f"{named(row['layers'], row['ndims'])}: {verdict} (KS p-value {row['ks_pvalue']:.2g} with "
            f"{row['simulations']} simulations; exact distance {max(row['ks_exact_0'], row['ks_exact_1']):.3f}; "
            f"{row['no_codeword_exact']:.1%} of the rows that the model makes are no codeword)."
        )


def main(args: argparse.Namespace) -> None:
    cases = []
    for run in obtain(args):
        tell(f"{named(run.config.layers, run.data.ndims)}: simulating")
        truth = exact.solve(run.model, run.guide, run.data)
        seen = simulate_calibration(run.model, run.guide, run.data, args.simulations, seed=args.seed)
        cases.append((run, truth, seen))
    rows = [row_of(*case) for case in cases]
    write(args, "calibration", rows, draw(cases), answer(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of_looks(__doc__, "calibration", ndims=(5, 1000))
    parser.add_argument("--simulations", type=int, default=5000)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
