"""Tables for a reader at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from pyro_onebit.study import ORIGINAL

__all__ = ["CELL", "SUMMARY", "format_bounds", "format_checks", "format_comparison", "format_table", "summarise"]

#: What the seeds of one cell of a grid have in common.
CELL = ("layers", "ndims", "prob", "guide", "objective")
#: The columns that `summarise` adds.
SUMMARY = ("seeds", "worst", "median", "best", "collapsed", "seconds")
#: Of more runs than a screen has lines, a terminal shows the cells.
_LINES = 60


def summarise(rows: Iterable[Mapping[str, Any]], by: Sequence[str] = CELL) -> list[dict[str, Any]]:
    """A row a cell: its seeds' exact losses above the family's limit, in nats.

    Arguments:
        rows: Rows of ``results.csv``.
        by: Columns that are equal within a cell.

    Returns:
        `by` and `SUMMARY`: the number of seeds; the worst, median and best of them; the share that collapsed, that
        is, whose latent does not hold half of the bit though n > 1 makes it worth its cost; the median seconds.
    """
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in by), []).append(row)
    table = []
    for key, own in cells.items():
        above = sorted(row["loss"] - row["optimum"] for row in own)
        collapsed = sum(row["ndims"] > 1 and row["mutual_information"] < 0.5 * row["entropy"] for row in own)
        table.append(
            {
                **dict(zip(by, key, strict=True)),
                "seeds": len(own),
                "worst": above[-1],
                "median": median(above),
                "best": above[0],
                "collapsed": collapsed / len(own),
                "seconds": median(row["seconds"] for row in own),
            }
        )
    return table


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text: each run beside its limit and, where there is one, the original's result.

    Of more than 60 runs, a line a cell of the grid instead, over its seeds.
    """
    if len(rows) > _LINES:
        return _format_summary(summarise(rows))
    named = len({(row["layers"], row["guide"], row["objective"]) for row in rows}) > len({r["layers"] for r in rows})
    header = (
        f"{'layers':>6} {'ndims':>6} {_names('guide', 'objective') if named else ''}{'seed':>4} │ "
        f"{'loss':>8} {'limit':>8} {'above':>8} {'original':>8} │ "
        f"{'recon/dim':>9} {'original':>9} │ {'kl1':>8} {'kl2':>7} {'KL post.':>8} {'I(x;z)':>7} {'seconds':>7}"
    )
    lines = _headed(header)
    for row in rows:
        original = ORIGINAL.get((row["layers"], row["ndims"])) if row["prob"] == 0.5 else None
        loss, recon = (f"{original[0]:8.5f}", f"{original[1]:9.2e}") if original else (" " * 8, " " * 9)
        lines.append(
            f"{row['layers']:6d} {row['ndims']:6d} {_names(row['guide'], row['objective']) if named else ''}"
            f"{row['seed']:4d} │ "
            f"{row['loss']:8.5f} {row['optimum']:8.5f} {row['loss'] - row['optimum']:8.5f} {loss} │ "
            f"{row['recon_per_dim']:9.2e} {recon} │ {row['kl1']:8.4f} {row['kl2']:7.4f} "
            f"{row['kl_posterior']:8.5f} {row['mutual_information']:7.4f} {row['seconds']:7.1f}"
        )
    lines.append(
        "nats per datum; limit: the lowest loss of the family (one layer: any decoder, Gaussian q; two: entropy)"
    )
    return "\n".join(lines)


def _format_summary(cells: Sequence[dict[str, Any]]) -> str:
    header = (
        f"{'layers':>6} {'ndims':>6} {'prob':>6} {_names('guide', 'objective')}│ {'seeds':>5} {'worst':>8} "
        f"{'median':>8} {'best':>8} {'collapsed':>9} {'seconds':>7}"
    )
    lines = _headed(header)
    for cell in cells:
        lines.append(
            f"{cell['layers']:6d} {cell['ndims']:6d} {cell['prob']:6g} {_names(cell['guide'], cell['objective'])}│ "
            f"{cell['seeds']:5d} {cell['worst']:8.5f} {cell['median']:8.5f} {cell['best']:8.5f} "
            f"{cell['collapsed']:9.0%} {cell['seconds']:7.1f}"
        )
    lines.append("worst, median, best: of the seeds, nats above the lowest loss of the family; each run: results.csv")
    return "\n".join(lines)


def _names(guide: str, objective: str) -> str:
    return f"{guide[:10]:>10} {objective:>9} "


def format_checks(rows: Sequence[dict[str, Any]]) -> str:
    """The posterior checks (`exact.posterior_checks`) as text: a line a latent, target and codeword."""
    header = (
        f"{'latent':>6} {'codeword':>8} {'target':>9} │ {'KL(q‖target)':>12} {'KL(target‖q)':>12} "
        f"{'W1':>8} {'KS':>8} {'q, wrong side':>13} {'target, wrong side':>18}"
    )
    lines = _headed(header)
    for row in rows:
        figures = [
            _number(row["kl_forward"], 12, "∞"),
            _number(row["kl_reverse"], 12, "∞"),
            _number(row["wasserstein"], 8),
            _number(row["ks"], 8),
            _number(row["wrong_side_q"], 13),
            _number(row["wrong_side_target"], 18),
        ]
        lines.append(f"{row['latent']:>6} {row['codeword']:8d} {row['target']:>9} │ {' '.join(figures)}")
    lines.append("KL in nats; W1: Wasserstein-1, in units of the latent; KS: Kolmogorov-Smirnov distance;")
    lines.append("∞: the first has mass where the second has none, as a truncated normal beyond its threshold")
    return "\n".join(lines)


def format_bounds(rows: Sequence[dict[str, Any]]) -> str:
    """Sampled bounds beside their exact expectations (`bounds.bound_table`) as text."""
    header = (
        f"{'K':>9} {'codeword':>8} │ {'sampled':>10} {'± s.e.':>9} {'expected':>10} {'below log p':>11} │ "
        f"{'ESS':>10} {'largest':>8} {'k̂':>6} {'ideal k̂':>8} {'k̂ below its limit':>18}"
    )
    lines = _headed(header)
    for row in rows:
        lines.append(
            f"{row['particles']:9d} {'mean' if row['codeword'] is None else row['codeword']:>8} │ "
            f"{row['estimate']:10.6f} {_number(row['standard_error'], 9)} {row['expected']:10.6f} {row['gap']:11.6f} │"
            + (
                ""
                if row["codeword"] is None
                else f" {row['ess']:10.1f} {row['largest_share']:8.2%} {_number(row['khat'], 6, digits=2)} "
                f"{_number(row['khat_ideal'], 8, digits=2)} {_YES_NO[row['trusted']]:>18}"
            )
        )
    lines.append(
        "nats; sampled: mean over repeats; expected: its exact expectation, by quadrature, and how far that is"
    )
    lines.append("below log p(x); ESS, largest weight's share, k̂: of one repeat; ideal k̂: of the law's own K quantiles")
    return "\n".join(lines)


def format_comparison(rows: Sequence[dict[str, Any]]) -> str:
    """A comparison's rows as a table to read; nats, and where it says so, bits."""
    header = (
        f"{_names('guide', 'objective')}{'ndims':>6} {'seed':>4} │ {'loss':>8} {'gap':>8} {'bits':>8} │ "
        f"{'KL(q‖p)':>8} {'approx.':>8} {'amort.':>8} {'ideal':>7} {'bent':>7} │ "
        f"{'KL(p‖q)':>8} {'W1':>7} {'k̂':>6} {'I(x;z)':>7} {'params':>6} {'seconds':>7}"
    )
    lines = _headed(header)
    for row in rows:
        lines.append(
            f"{_names(row['guide'], row['objective'])}{row['ndims']:6d} {row['seed']:4d} │ {row['loss']:8.5f} "
            f"{row['gap_nats']:8.5f} {row['gap_bits']:8.5f} │ {row['kl_forward']:8.5f} {row['approximation']:8.5f} "
            f"{row['amortisation']:8.5f} {_number(row['ideal_gap'], 7, '')} {_number(row['bent'], 7, '')} │ "
            f"{_number(row['kl_reverse'], 8, '∞')} {row['wasserstein']:7.4f} {_number(row['khat'], 6, digits=2)} "
            f"{row['mutual_information']:7.4f} {row['parameters']:6d} {row['seconds']:7.1f}"
        )
    lines.append(
        "nats; gap: of the loss to the entropy; approx., amort.: the parts of KL(q‖p); ideal: the family's gap to an\n"
        "ideal threshold decoder's posterior; bent: by how much the learned posterior is closer to the family than that"
    )
    return "\n".join(lines)


def _headed(header: str) -> list[str]:
    return [header, "─" * len(header)]


_YES_NO = {True: "yes", False: "no", None: ""}


def _number(value: float | None, width: int, missing: str = "", digits: int = 5) -> str:
    return f"{missing:>{width}}" if value is None else f"{value:{width}.{digits}f}"
