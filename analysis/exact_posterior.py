"""Is the learned q(z|x) the truncated Gaussian?

    python analysis/exact_posterior.py
    python analysis/exact_posterior.py --run results/runs/layers2-ndims001000-two_layer-stl-seed0

For each codeword: how far q(z_top|x) is from the learned model's exact posterior and from the normal
truncated at an ideal model's threshold; for two layers z1 and the joint too. All by quadrature. Writes
``exact_posterior.csv`` and ``exact_posterior.png``, prints the table and the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from common import named, obtain, parser_of_looks, write
from matplotlib.figure import Figure

from pyro_onebit import Run, exact
from pyro_onebit.plots import DARK, GREY, LAYER_NAMES, codeword_colours, legend


def rows_of(run: Run, truth: exact.Truth) -> list[dict[str, Any]]:
    """The posterior checks of a run, said whose they are."""
    joint = exact.solve_joint(run.model, run.guide, run.data, truth)
    whose = {"layers": run.config.layers, "ndims": run.config.ndims, "threshold": truth.crossing}
    return [{**whose, **row} for row in exact.posterior_checks(truth, joint)]


def draw(solved: Sequence[tuple[Run, exact.Truth]]) -> Figure:
    """For each run, above: q(z|x), the exact posterior, the truncated normal; below: q's distance from the latter."""
    figure = Figure(figsize=(1.0 + 3.1 * len(solved), 5.2), layout="constrained")
    panels: Any = figure.subplots(2, len(solved), sharex=True, squeeze=False, height_ratios=(2, 1))
    for (above, below), (run, truth) in zip(panels.T, solved, strict=True):
        z = truth.z
        for codeword, colour in enumerate(codeword_colours(truth)):
            name = rf"x{{=}}\mathbf{{{codeword}}}"
            above.plot(z, truth.log_q[codeword].exp(), color=colour, lw=2.2, label=rf"$q(z\,|\,{name})$")
            gap = truth.grid.cumulative(truth.log_q[codeword].exp() - truth.log_truncated[codeword].exp())
            below.plot(z, gap, color=colour)
        for posterior, truncated in zip(truth.log_posterior.exp(), truth.log_truncated.exp(), strict=True):
            above.plot(z, truncated, color=GREY, lw=1.4, label="truncated Gaussian")
            above.plot(z, posterior, color=DARK, ls=":", lw=1.4, label="exact $p(z|x)$")
        above.set(title=f"{LAYER_NAMES[run.config.layers]}, $n = {run.data.ndims}$", xlim=(-3.5, 3.5), ylim=(0.0, None))
        below.axhline(0.0, color=GREY, lw=0.8)
        below.set(xlabel=f"$z_{run.config.layers}$", ylim=(-0.5, 0.5))
    panels[0, 0].set_ylabel("density")
    panels[1, 0].set_ylabel(r"$F_q - F_{\mathrm{truncated}}$")
    legend(figure, loc="outside lower center", ncols=4)
    return figure


def answer(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each number of layers, about its largest ndims."""
    for layers in sorted({row["layers"] for row in rows}):
        ndims = max(row["ndims"] for row in rows if row["layers"] == layers)
        own = [r for r in rows if (r["layers"], r["ndims"], r["target"]) == (layers, ndims, "truncated")]
        worst = {name: max(row[name] for row in own) for name in ("kl_reverse", "wasserstein", "ks", "wrong_side_q")}
        verdict = "nearly" if worst["ks"] < 0.05 else "no"
        yield (
            f"{named(layers, ndims)}: {verdict}. From the truncated Gaussian q(z|x) is "
            f"{worst['wasserstein']:.3f} away in Wasserstein-1 and {worst['ks']:.3f} in Kolmogorov-Smirnov distance, "
            f"{worst['wrong_side_q']:.1e} of its mass is on the wrong side, and KL(truncated ‖ q) is "
            f"{worst['kl_reverse']:.4f} nats (the worse codeword); KL(q ‖ truncated) is infinite, because there is "
            "such mass."
        )


def main(args: argparse.Namespace) -> None:
    solved = [(run, exact.solve(run.model, run.guide, run.data)) for run in obtain(args)]
    rows = [row for run, truth in solved for row in rows_of(run, truth)]
    write(args, "exact_posterior", rows, draw(solved), answer(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    return parser_of_looks(__doc__, "exact_posterior", ndims=(5, 100, 1000)).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
