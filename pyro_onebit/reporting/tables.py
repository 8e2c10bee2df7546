"""Tables for a reader at a terminal, or in Markdown: all by one function."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import pandas as pd

from pyro_onebit.reporting.summary import summarise
from pyro_onebit.studies import CELL, COLUMNS, Column, Kind, records, shown_columns, with_derived

#: Of more runs than a screen has lines, a terminal shows the cells.
_LINES = 60
#: From here on a number is shown by its power of ten.
_LONG = 1e9
#: As wide as a file; and as a line of prose at most.
_ENDLESS, _PROSE = 100_000, 110


def format_value(value: Any, column: Column) -> str:
    """A value as people read it: empty where there is none."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if not isinstance(value, float):
        return str(value)
    if value < column.floor:
        return f"< {column.floor:g}"
    # "z": what rounds to nothing has no sign. And no table is as wide as a number without end.
    return format(value, ".3e" if abs(value) >= _LONG else f"z{column.format}")


def _lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    header = [column.title or column.name for column in columns]
    return [header, *([format_value(row.get(column.name), column) for column in columns] for row in rows)]


def text_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], note: str = "") -> str:
    """Rows as aligned text.

    What is wider than standard output's terminal is shown in several tables, one below the other; each begins with the
    columns that stand before the first bar.

    Arguments:
        rows: The rows.
        columns: What to show of them.
        note: What stands below, in lines as long as the terminal's, and no longer than can be read.
    """
    width = shutil.get_terminal_size((_ENDLESS, 1)).columns
    cells = list(zip(*_lines(rows, columns), strict=True))
    shown = [
        [("│ " if column.bar else "") + cell.rjust(max(map(len, own))) for cell in own]
        for column, own in zip(columns, cells, strict=True)
    ]
    first = next((i for i, column in enumerate(columns) if column.bar), len(columns))
    parts = [shown[:first]]
    for column in shown[first:]:
        if len(parts[-1]) > first and sum(len(own[0]) + 1 for own in parts[-1]) + len(column[0]) > width:
            parts.append(shown[:first])
        parts[-1].append(column)
    tables = []
    for part in parts:
        header, *lines = [" ".join(line) for line in zip(*part, strict=True)]
        tables.append("\n".join([header, "─" * len(header), *lines]))
    return "\n".join(["\n\n".join(tables), *wrap(note, min(width, _PROSE))])


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Rows as a table in Markdown."""
    header, *lines = _lines(rows, columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))


_NOTES = {
    "results": "nats per datum; limit: the lowest loss of the guide's family (docs/glossary.md)",
    "comparison": (
        "nats; gap: of the loss to the entropy; approx., amort.: the parts of KL(q‖p); ideal: the family's gap to "
        "an ideal threshold decoder's posterior; bent: by how much the learned one is closer to the family than that; "
        "k̂ < 0: bounded weights; no k̂: weights that are all equal, as the exact posterior's are"
    ),
}


def format_runs(table: pd.DataFrame, kind: Kind) -> str:
    """A study's or a comparison's table as text; of more than 60 runs, a line for each cell of the grid instead."""
    if len(table) > _LINES:
        return format_summary(summarise(table))
    table = with_derived(table)
    return text_table(records(table), shown_columns(kind, table), _NOTES[kind])


def format_summary(summary: pd.DataFrame) -> str:
    """Cells, summed up over their seeds, as text."""
    note = "worst, median, best: of the seeds, nats above the lowest loss of the family; each run: results.csv"
    return text_table(records(summary), summary_columns(summary), note)


def summary_columns(summary: pd.DataFrame) -> list[Column]:
    """How the columns of `summarise` are shown: of those that say which cell it is, what varies."""
    cell = {column.name: column for column in shown_columns("results", summary)}
    made = {name: column for column in COLUMNS for name in column.over_seeds}
    columns = [cell[name] for name in CELL if name in summary and name in cell]
    columns.append(Column("seeds", "number of seeds", type=int, bar=True))
    for name in map(str, summary.columns):
        if name in made and name not in CELL:
            own = {field: getattr(made[name], field) for field in ("meaning", "unit", "format", "floor")}
            columns.append(Column(name, **own, optional=True))
    return columns


_CHECKS = (
    Column("latent"),
    Column("codeword"),
    Column("target"),
    Column("kl_forward", title="KL(q‖target)", bar=True),
    Column("kl_reverse", title="KL(target‖q)"),
    Column("wasserstein", title="W1"),
    Column("ks", title="KS"),
    Column("wrong_side_q", title="q, wrong side"),
    Column("wrong_side_target", title="target, wrong side"),
)


def format_checks(rows: Sequence[Mapping[str, Any]]) -> str:
    """The posterior checks (`exact.posterior_checks`) as text: a line for each latent, target and codeword."""
    note = (
        "KL in nats; W1: Wasserstein-1, in units of the latent; KS: Kolmogorov-Smirnov distance; "
        "∞: the first has mass where the second has none, as a truncated normal beyond its threshold"
    )
    # A divergence that has no number is infinite; other figures that have none are not defined.
    infinite = ("kl_forward", "kl_reverse")
    shown = [{**row, **{name: math.inf for name in infinite if row[name] is None}} for row in rows]
    return text_table(shown, _CHECKS, note)


_BOUNDS = (
    Column("particles", title="K"),
    Column("codeword"),
    Column("estimate", format=".6f", title="sampled", bar=True),
    Column("standard_error", title="± s.e."),
    Column("expected", format=".6f"),
    Column("gap", format=".2e", title="below log p"),
    Column("ess", format=".1f", title="ESS", bar=True),
    Column("largest_share", format=".2%", title="largest"),
    Column("khat", format=".2f", title="k̂", floor=0.0),
    Column("khat_ideal", format=".2f", title="ideal k̂", floor=0.0),
    Column("trusted", title="k̂ below its limit"),
)


def format_bounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sampled bounds beside their exact expectations (`bounds.bound_table`) as text."""
    note = (
        "nats; sampled: mean over repeats; expected: its exact expectation, by quadrature, and how far that is "
        "below log p(x); ESS (effective sample size), largest weight's share, k̂: of one repeat; ideal k̂: of the law's "
        "own K quantiles; k̂ < 0: bounded weights; empty: fewer than 100 draws, or weights that are all equal"
    )
    return text_table(
        [{**row, "codeword": "mean" if row["codeword"] is None else row["codeword"]} for row in rows], _BOUNDS, note
    )
