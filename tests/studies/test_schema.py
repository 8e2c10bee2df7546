"""Columns are declared once, and everything follows."""

import math

import pandas as pd
import pytest

from pyro_onebit import InputError
from pyro_onebit.reporting import format_runs, format_value, summarise, text_table
from pyro_onebit.studies import (
    COLUMNS,
    ORIGINAL,
    Column,
    check_table,
    columns_of,
    complete_metrics,
    records,
    shown_columns,
    to_table,
    with_derived,
)


def metrics(**changes: object) -> dict:
    """A run's, with a number everywhere."""
    values = {column.name: "gaussian" if column.type is str else column.type(1) for column in columns_of("results")}
    return {**values, "prob": 0.5, "model": "one_layer", "objective": "elbo", "entropy": 0.7, **changes}


def test_names_are_unique_and_explained() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in COLUMNS)


def test_the_contracts_columns_are_there() -> None:
    promised = (
        "ndims, prob, layers, guide, objective, seed, loss, recon, recon_per_dim, kl1, kl2, entropy, log_evidence, "
        "kl_posterior, mutual_information, kl_aggregate, optimum, steps, seconds"
    )
    assert set(promised.split(", ")) <= {column.name for column in columns_of("results")}


def test_an_old_runs_metrics_are_completed() -> None:
    old = {name: value for name, value in metrics(layers=2).items() if name != "model"}
    assert complete_metrics(old)["model"] == "two_layer"
    assert complete_metrics({**old, "optimum": None})["optimum"] is None


def test_what_is_infinite_is_empty() -> None:
    assert complete_metrics(metrics(kl1=math.inf, kl2=-math.inf))["kl1"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "its loss is None; it must be a finite number"),
        ({"loss": True}, "its loss is True"),
        ({"loss": math.inf}, "its loss is inf"),
        ({"loss": math.nan}, "its loss is nan"),
        ({"seconds": 10**400}, "its seconds is 1000"),
        ({"ndims": 2.5}, "its ndims is 2.5; it must be a whole number"),
        ({"guide": 3}, "its guide is 3; it must be a name"),
        ({"other": 1}, "'other' is no figure that this version knows"),
    ],
)
def test_wrong_metrics(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete_metrics(metrics(**changes))


def test_a_table_is_checked_and_completed() -> None:
    table = to_table([metrics(), metrics(seed=2, optimum=None)], "results")
    assert check_table(table.drop(columns="model"), "results")["model"].tolist() == ["one_layer"] * 2
    with pytest.raises(InputError, match="it lacks loss"):
        check_table(table.drop(columns="loss"), "results")
    with pytest.raises(InputError, match="a loss is nan; it must be a finite number"):
        check_table(table.assign(loss=math.nan), "results")
    assert records(table)[1]["optimum"] is None
    assert isinstance(records(table)[0]["ndims"], int)


def test_derived_columns() -> None:
    first = metrics(ndims=5, loss=1.2, optimum=1.0, mutual_information=0.1)
    table = to_table([first, metrics(ndims=6, optimum=None)], "results")
    full = with_derived(table)
    assert full["above"].tolist()[0] == pytest.approx(0.2)
    assert math.isnan(full["above"][1])
    assert full["original"][0] == ORIGINAL[1, 5][0]
    assert math.isnan(full["original"][1])
    assert full["collapsed"].tolist() == [1.0, 0.0]


def shown(*rows: dict) -> list[str]:
    return [column.name for column in shown_columns("results", to_table(rows, "results"))]


def test_what_varies_is_shown() -> None:
    assert shown(metrics(), metrics(seed=2))[:3] == ["layers", "ndims", "seed"]
    several = shown(metrics(), metrics(guide="truncated", prob=0.1))
    assert several[:5] == ["layers", "ndims", "prob", "guide", "seed"]
    of_two_layers = metrics(layers=2, model="two_layer", guide="two_layer", objective="stl")
    assert shown(metrics(), of_two_layers)[:3] == ["layers", "ndims", "seed"]


def test_seeds_are_summed_up_cell_by_cell() -> None:
    seeds = [{"seed": seed, "loss": 1.0 + seed / 8, "optimum": 1.0} for seed in range(3)]
    rows = [metrics(guide=guide, **changes) for guide in ("a", "b") for changes in seeds]
    rows += [metrics(guide="unknown", seed=seed, loss=2.0, optimum=None) for seed in range(2)]
    summary = summarise(to_table(rows, "results")).set_index("guide")
    assert summary["seeds"].tolist() == [3, 3, 2]
    assert summary.loc["a", ["best", "median", "worst"]].tolist() == [0.0, 0.125, 0.25]
    assert summary.loc["unknown", ["best", "median", "worst"]].isna().all()
    assert summary.loc["unknown", "loss"] == 2.0


def test_one_column_more_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared, it is in files, tables and summaries; a run that lacks it has what it says."""
    more = Column("surprise", "a new figure", shown=("results",), over_seeds={"surprise": "max"}, missing=lambda _: 0.5)
    old, new = metrics(), metrics(seed=2, surprise=2.0)
    for place in ("studies.schema", "reporting.summary", "reporting.tables"):
        monkeypatch.setattr(f"pyro_onebit.{place}.COLUMNS", (*COLUMNS, more))
    table = to_table([complete_metrics(old), complete_metrics(new)], "results")
    assert table["surprise"].tolist() == [0.5, 2.0]
    assert "surprise" in format_runs(table, "results")
    assert summarise(table)["surprise"].tolist() == [2.0]


def test_text_tables() -> None:
    columns = (Column("name", type=str), Column("figure", title="f", format=".2f", bar=True))
    rows = [{"name": "one", "figure": 1.0}, {"name": "three", "figure": math.inf}, {"name": "", "figure": None}]
    assert text_table(rows, columns, "note").splitlines() == [
        " name │    f",
        "────────────",
        "  one │ 1.00",
        "three │    ∞",
        "      │     ",
        "note",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, of which each begins with what says which run it is; nothing is left out, and no zero has a sign."""
    monkeypatch.setenv("COLUMNS", str(width))
    table = to_table([metrics(seed=seed) | {"kl2": -1e-9} for seed in range(3)], "results")
    lines = format_runs(table, "results").splitlines()
    assert max(map(len, lines)) <= width
    monkeypatch.setenv("COLUMNS", "1000")
    whole = format_runs(table, "results").splitlines()
    heads = " ".join(line for line in lines if line.startswith("layers"))
    assert set(whole[0].split()) == set(heads.split())
    assert len(lines) - len(whole) in (0, len(whole))
    assert "-0.0000" not in "".join(whole)


def test_of_many_runs_a_line_for_each_cell() -> None:
    table = to_table([metrics(seed=seed) for seed in range(61)], "results")
    assert sum("│" in line for line in format_runs(table, "results").splitlines()) == 2  # the header, and a cell
    assert pd.notna(summarise(table)["worst"]).all()


def test_a_shape_is_shown_where_it_means_something() -> None:
    [column] = [own for own in COLUMNS if own.name == "khat"]
    shown = [format_value(value, column) for value in (0.51, 0.0, -0.03, -1.7, None)]
    assert shown == ["0.51", "0.00", "< 0", "< 0", ""]
