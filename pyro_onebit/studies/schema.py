"""The figures of runs: each column of a table is declared once, and every table, file and page reads it here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from pyro_onebit.data import deal
from pyro_onebit.errors import InputError
from pyro_onebit.training import DEFAULT_MODELS, IDENTITY

#: The original experiment's published results: (layers, ndims) to (loss, recon per dimension), nats,
#: Monte Carlo estimates over 10,000 samples of one trained model each (github.com/RuiShu/one-bit-vae).
ORIGINAL = {
    (1, 1): (0.693146, 0.692536),
    (1, 5): (1.066330, 0.0278800),
    (1, 10): (1.140738, 0.00956119),
    (1, 100): (1.426243, 0.00147573),
    (1, 1000): (1.485946, 4.28207e-05),
    (2, 1): (0.693192, 0.693038),
    (2, 5): (0.721471, 0.00195538),
    (2, 10): (0.723806, 9.19815e-05),
    (2, 100): (0.722139, 2.29151e-05),
    (2, 1000): (0.750554, 2.22730e-06),
}
#: No figure of a run comes near.
_LARGEST = 1e300

#: A table of runs: a study's results, a comparison, or the runs that failed.
Kind = Literal["results", "comparison", "failures"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Arguments:
        name: Its name in files and in Python.
        meaning: What it is, in words.
        unit: Nats, bits, seconds; empty if it has none.
        type: What its values are: int, float or str.
        format: How a number is shown.
        title: Its name where people read it, if another.
        tables: In whose files it stands; a run's metrics are what stands in a study's results.
        shown: In which of them people see it. A column of `CELL` that is not the same in all rows always is.
        over_seeds: The columns that sum it up over seeds, each with the name of a pandas aggregation.
        optional: Whether it is empty where it is infinite, not known or not defined.
        missing: What stands for it in a run of a version that had no such column, given the others.
        derived: Computes it from a table's other columns; then it stands in no file.
        bar: Whether a rule stands before it in a text table.
        floor: Below it a number's value means nothing more, and that it is below is shown.
    """

    name: str
    meaning: str = ""
    unit: str = ""
    type: type = float
    format: str = ".5f"
    title: str = ""
    tables: tuple[Kind, ...] = ("results", "comparison")
    shown: tuple[Kind, ...] = ()
    over_seeds: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    missing: Callable[[Mapping[str, Any]], Any] | None = None
    derived: Callable[[pd.DataFrame], Any] | None = None
    bar: bool = False
    floor: float = -math.inf


def _original(place: int) -> Callable[[pd.DataFrame], Any]:
    def values(table: pd.DataFrame) -> list[float]:
        usual = (table["prob"] == 0.5) & (table["bits"] == 1) & (table["model"] == table["layers"].map(DEFAULT_MODELS))
        cells = zip(table["layers"], table["ndims"], usual, strict=True)
        known = [ORIGINAL.get((layers, ndims)) if is_usual else None for layers, ndims, is_usual in cells]
        return [math.nan if pair is None else pair[place] for pair in known]

    return values


_ALL: tuple[Kind, ...] = ("results", "comparison", "failures")
_BOTH: tuple[Kind, ...] = ("results", "comparison")
_RESULTS: tuple[Kind, ...] = ("results",)
_COMPARISON: tuple[Kind, ...] = ("comparison",)
_FAILURES: tuple[Kind, ...] = ("failures",)


def _nats(name: str, meaning: str, title: str = "", *, optional: bool = True, **more: Any) -> Column:
    return Column(name, meaning, "nats", title=title, optional=optional, **more)


def _of_gap(name: str, meaning: str, title: str = "", unit: str = "nats", **more: Any) -> Column:
    """A column of comparisons alone."""
    settings: dict[str, Any] = {"over_seeds": {name: "median"}, "optional": True, **more}
    return Column(name, meaning, unit, title=title, tables=_COMPARISON, shown=_COMPARISON, **settings)


#: Every column of a run, in the order of files and tables.
COLUMNS = (
    Column("layers", "latent layers", type=int, tables=_ALL, shown=_ALL),
    Column("ndims", "dimensions of x", type=int, tables=_ALL, shown=_ALL),
    Column("bits", "bits of information", type=int, tables=_ALL, missing=lambda metrics: 1),
    Column(
        *("repeats", "in how many dimensions each bit is repeated"),
        type=str,
        tables=_ALL,
        missing=lambda metrics: str(metrics["ndims"]),
    ),
    Column("prob", "probability that a bit is 1", format="g", tables=_ALL),
    Column("model", "the model", type=str, tables=_ALL, missing=lambda metrics: DEFAULT_MODELS.get(metrics["layers"])),
    Column("guide", "the guide", type=str, tables=_ALL, shown=("comparison", "failures")),
    Column("objective", "what training maximised", type=str, tables=_ALL, optional=True),
    Column("seed", "the seed", type=int, tables=_ALL, shown=_ALL, optional=True),
    Column("run", "the run's directory", type=str, tables=_FAILURES),
    Column("reason", "why there is no result", type=str, tables=_FAILURES, shown=_FAILURES),
    _nats("loss", "-ELBO", shown=_BOTH, over_seeds={"loss": "median"}, bar=True, optional=False),
    _nats("optimum", "lowest loss of the guide's family", "limit", shown=_RESULTS),
    _nats(
        "above",
        "loss above the lowest of the guide's family",
        shown=_RESULTS,
        over_seeds={"worst": "max", "median": "median", "best": "min"},
        derived=lambda table: table["loss"] - table["optimum"].astype(float),
    ),
    _nats("original", "the original experiment's loss", "orig. loss", shown=_RESULTS, derived=_original(0)),
    _nats("entropy", "of the data", optional=False),
    _of_gap("gap_nats", "loss above the entropy", "gap", over_seeds={"worst_gap": "max", "best_gap": "min"}),
    _of_gap("gap_bits", "loss above the entropy", "bits", "bits", over_seeds={}),
    _nats("recon", "E[-log p(x|z1)], what the reconstruction costs"),
    _nats("recon_per_dim", "the same for each dimension", "recon/dim", format=".2e", shown=_RESULTS, bar=True),
    _nats(
        *("original_recon", "the original experiment's", "orig. recon"),
        format=".2e",
        shown=_RESULTS,
        derived=_original(1),
    ),
    _nats("kl1", "E[log q(z1|x) - log p(z1)]; of two layers, - log p(z1|z2)", format=".4f", shown=_RESULTS, bar=True),
    _nats("kl2", "E[log q(z2|z1) - log p(z2)]", format=".4f", shown=_RESULTS),
    _nats("log_evidence", "E[log p(x)]"),
    _nats("kl_posterior", "E KL(q(z_top|x) ‖ p(z_top|x))", "KL post.", shown=_RESULTS),
    _of_gap("kl_forward", "E KL(q(z|x) ‖ p(z|x)) of all latents", "KL(q‖p)", bar=True),
    _of_gap("approximation", "the part of kl_forward that is the family's", "approx."),
    _of_gap("amortisation", "the part of kl_forward that a member for each codeword would save", "amort."),
    _of_gap("ideal_gap", "the family's gap to an ideal threshold decoder's posterior", "ideal"),
    _of_gap("bent", "by how much the learned posterior is closer to the family than that"),
    _of_gap("kl_reverse", "E KL(p(z|x) ‖ q(z|x)) of all latents", "KL(p‖q)", bar=True),
    _of_gap("wasserstein", "Wasserstein-1 of q(z_top|x) to the truncated normal, in units of the latent", "W1", ""),
    _of_gap(
        *("khat", "Pareto k̂ of 10,000 weights, the worse codeword's; < 0: bounded; empty: equal", "k̂"),
        unit="",
        format=".2f",
        floor=0.0,
    ),
    _nats("mutual_information", "I_q(x; z_top)", "I(x;z)", format=".4f", shown=_BOTH),
    _nats("kl_aggregate", "KL(q(z_top) ‖ p(z_top))"),
    Column(
        "collapsed",
        "whether the latent holds less than half of the entropy, though repeated bits make it worth its cost",
        format=".0%",
        over_seeds={"collapsed": "mean"},
        derived=lambda table: (
            1.0 * ((table["ndims"] > table["bits"]) & (table["mutual_information"] < 0.5 * table["entropy"]))
        ),
    ),
    _of_gap("parameters", "the guide's number of parameters", "params", "", type=int, optional=False),
    Column("steps", "steps of the training", type=int, optional=True),
    Column(
        *("seconds", "time of the training", "s"),
        format=".1f",
        shown=_BOTH,
        over_seeds={"seconds": "median"},
        optional=True,
    ),
)

#: What the runs of a cell, which differ in their seeds alone, have in common.
CELL = tuple(name for name in IDENTITY if name != "seed")


def columns_of(kind: Kind) -> list[Column]:
    """The columns that stand in a table's file."""
    return [column for column in COLUMNS if kind in column.tables and column.derived is None]


def shown_columns(kind: Kind, table: pd.DataFrame) -> list[Column]:
    """The columns of a table that people see: of those that say which run it is, what is not the same in all rows.

    A derived column that has no value in any row is left out.
    """
    varies = {name for name in CELL if name in table and table[name].nunique() > 1}
    # What follows from other columns needs no saying, nor what each number of layers has as its own.
    if "repeats" in varies and all(
        " ".join(map(str, deal(ndims, bits))) == repeats
        for ndims, bits, repeats in zip(table["ndims"], table["bits"], table["repeats"], strict=True)
    ):
        varies.remove("repeats")
    for name in ("model", "guide", "objective"):
        if name in varies and table.groupby("layers")[name].nunique().max() == 1:
            varies.remove(name)
    return [
        column
        for column in COLUMNS
        if kind in column.tables
        and (kind in column.shown or column.name in varies)
        and not (column.derived and column.name in table and table[column.name].isna().all())
    ]


def to_table(rows: Iterable[Mapping[str, Any]], kind: Kind) -> pd.DataFrame:
    """Rows as a table of a kind's columns; what else they hold is left out."""
    columns = columns_of(kind)
    table = pd.DataFrame(list(rows), columns=[column.name for column in columns])
    types = {column.name: column.type for column in columns}
    # What is not known of a run that was trained by hand is missing, which plain integers and strings cannot be.
    lacking = {name: _WITH_MISSING[kind] for name, kind in types.items() if table[name].isna().any()}
    return table.astype(types | lacking)


def with_derived(table: pd.DataFrame, columns: Iterable[Column] = COLUMNS) -> pd.DataFrame:
    """A study's or a comparison's table with those of the columns that are derived from others."""
    return table.assign(**{column.name: column.derived for column in columns if column.derived})


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as plain Python values, None where there is none: what JSON can hold."""
    values = table.astype(object).where(table.notna(), None)
    return [
        {
            str(name): None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        for row in values.to_dict("records")
    ]


def complete_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A run's metrics as read from a file, in order, with what an older version had no column for.

    Raises:
        InputError: If a figure is missing or of a wrong kind, or one is not known here.
    """
    names = [column.name for column in columns_of("results")]
    unknown = [name for name in metrics if name not in names]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no figure that this version knows")
    complete: dict[str, Any] = {}
    for column in columns_of("results"):
        stands_in = column.missing(complete) if column.missing and column.name not in metrics else None
        value = metrics.get(column.name, stands_in)
        if column.optional and value in (math.inf, -math.inf):
            value = None
        if not _is_right(column, value):
            raise InputError(f"its {column.name} is {repr(value)[:60]}; it must be {_KINDS[column.type]}")
        complete[column.name] = value
    return complete


def check_table(table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """A table as read from a file, with what an older version had no column for.

    Raises:
        InputError: If a column is missing or has a value of a wrong kind.
    """
    table = table.copy()
    for column in columns_of(kind):
        if column.name not in table:
            if column.missing is None:
                raise InputError(f"it lacks {column.name}")
            table[column.name] = [column.missing(row) for row in _rows(table)]
        if column.type is str and pd.api.types.is_integer_dtype(table[column.name]):
            table[column.name] = table[column.name].astype(str)  # which a file does not tell from a number
        wrong = [value for value in table[column.name] if not _is_right(column, value)]
        if wrong:
            raise InputError(f"a {column.name} is {repr(wrong[0])[:60]}; it must be {_KINDS[column.type]}")
    return to_table(_rows(table), kind)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


_WITH_MISSING: dict[type, Any] = {int: "Int64", float: float, str: object}
_KINDS: dict[type, str] = {int: "a whole number", float: "a finite number", str: "a name"}


def _is_right(column: Column, value: Any) -> bool:
    if value is None or value != value:
        return column.optional
    if column.type is str:
        return isinstance(value, str)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Of an integer too: one that a float cannot hold is none of ours.
    return is_number and -_LARGEST < value < _LARGEST and (column.type is float or int(value) == value)
