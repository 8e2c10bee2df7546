"""A study or a comparison as one page for a reader: a single file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from pyro_onebit.errors import InputError
from pyro_onebit.files import claim, read_table, read_whole, write_whole
from pyro_onebit.plots import own_style, png, training_figure
from pyro_onebit.reporting.sentences import findings
from pyro_onebit.reporting.summary import summarise
from pyro_onebit.reporting.tables import format_value, summary_columns
from pyro_onebit.reporting.templates import templates
from pyro_onebit.studies import (
    STUDY_FILE,
    Column,
    Kind,
    check_table,
    finished_runs,
    is_finished,
    load_config,
    read_history,
    read_metrics,
    read_study,
    read_versions,
    records,
    shown_columns,
    to_table,
    with_derived,
)

_NAME = "report.html"
#: What it is recognised by.
_MARK = rb": the one-bit VAE</title>"
_TITLES: dict[Kind, str] = {"results": "Results", "comparison": "Comparison", "failures": "Failures"}
#: No figure of ours comes near.
_MAX_BYTES = 2**24
#: Training curves are drawn of at most so many runs.
_CURVES = 24


@dataclass(frozen=True)
class _Table:
    title: str
    file: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Picture:
    content: str
    caption: str


def claim_report(out: str | Path, *, force: bool = False) -> None:
    """Find out whether ``report.html`` may be written to a directory.

    Arguments:
        out: The directory.
        force: Remove a file of that name that is not ours.

    Raises:
        InputError: If it may not.
    """
    claim(Path(out) / _NAME, _MARK, force=force)


def write_report(out: str | Path, *, force: bool = False) -> Path:
    """Write ``report.html`` into the directory of a study, a comparison or a single run, from what is there.

    Arguments:
        out: The directory.
        force: Whether to replace a file of the page's name that is not one of ours.

    Returns:
        The page's path.

    Raises:
        InputError: If there is no table, something there is damaged, or is not ours.
    """
    out = Path(out)
    tables = {kind: _read(out / f"{kind}.csv", kind) for kind in _TITLES if (out / f"{kind}.csv").exists()}
    if is_finished(out):
        tables["results"] = to_table([read_metrics(out / "metrics.json")], "results")
    if not tables:
        raise InputError(
            f"{out} holds no study and no run: there is no results.csv, comparison.csv or metrics.json; "
            "run `onebit study` first"
        )
    environment = templates()
    environment.filters |= {"shown": lambda column, value: format_value(value, column), "wrapped": _wrapped}
    environment.tests["text_type"] = lambda kind: kind is str
    study = out / STUDY_FILE
    runs = tables.get("results", tables.get("comparison", pd.DataFrame()))
    page = environment.get_template("report.html.j2").render(
        title=f"{out.resolve().name}: the one-bit VAE",
        lead=_lead(runs, len(tables.get("failures", ()))),
        settings=read_study(study).to_toml() if study.exists() else "",
        repeat=f"onebit {'compare' if 'comparison' in tables else 'study'} --config {STUDY_FILE}",
        findings=findings(runs),
        summary=_summary(runs),
        tables=[_shown(kind, table) for kind, table in tables.items()],
        pictures=[_picture(path) for path in sorted((out / "figures").glob("*.png"), key=_place)],
        training=_training(out),
        versions=_versions(out),
        version=version("pyro-onebit"),
    )
    write_whole(out / _NAME, page.encode(errors="backslashreplace"), _MARK, force=force)
    return out / _NAME


def _wrapped(name: str) -> Markup:
    """A column's name, that may be broken after an underscore."""
    return Markup(str(escape(name)).replace("_", "_<wbr>"))


def _read(path: Path, kind: Kind) -> pd.DataFrame:
    table = read_table(path)
    try:
        return check_table(table, kind)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from None


def _lead(table: pd.DataFrame, failed: int) -> str:
    """How many runs there are, and how far from their limit the best and the worst end."""
    lead = f"{len(table)} runs finished, {failed} failed. Losses are exact, by quadrature, in nats per datum."
    if table.empty:
        return lead
    above, limit = "the entropy", "entropy"
    if table["optimum"].notna().all():
        above, limit = "the lowest loss of its guide's family", "optimum"
    ranked = table.assign(distance=table["loss"] - table[limit]).sort_values("distance").iloc[[0, -1]]
    best, worst = (
        f"{row['distance']:.5f} ({row['guide']}, n = {row['ndims']}"
        + (")" if pd.isna(row["seed"]) else f", seed {row['seed']})")
        for row in ranked.to_dict("records")
    )
    return f"{lead} Above {above}, the best run ends {best}, the worst {worst}."


def _summary(table: pd.DataFrame) -> _Table | None:
    """A row for each cell, where cells have several seeds."""
    if table.empty or len(summary := summarise(table)) == len(table):
        return None
    return _Table("Summary", "", summary_columns(summary), records(summary))


def _shown(kind: Kind, table: pd.DataFrame) -> _Table:
    full = table if kind == "failures" else with_derived(table)
    return _Table(_TITLES[kind], f"{kind}.csv", shown_columns(kind, full), records(full))


#: The figures that come first, in this order.
_FIRST = ("information", "posteriors", "posterior", "aggregate")


def _place(path: Path) -> tuple[int, str]:
    return (_FIRST.index(path.stem) if path.stem in _FIRST else len(_FIRST), path.name)


def _picture(path: Path) -> _Picture:
    content = read_whole(path, _MAX_BYTES)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            caption = str(image.info.get("Description", path.stem))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise InputError(f"{path} is no PNG file; run the study's command again to draw it") from None
    return _Picture(base64.b64encode(content).decode(), caption)


def _training(out: Path) -> _Picture | None:
    histories = []
    paths = finished_runs(out)
    # Of many, some from everywhere in the grid.
    for path in paths[:: -(-len(paths) // _CURVES) or 1]:
        metrics, history = read_metrics(path / "metrics.json"), read_history(path)
        if len(history) and "loss" in history:
            limit = metrics["optimum"]
            histories.append((load_config(path), metrics["entropy"] if limit is None else limit, history))
    if not histories:
        return None
    which = "" if len(histories) == len(paths) else f"{len(histories)} of the {len(paths)} runs; "
    caption = (
        f"The loss during training, {which}above the lowest of the guide's family or, where that is not known, above "
        "the entropy. It is an estimate, noisy, and of the parameters as they were; the table's losses are exact and "
        "final."
    )
    with own_style():
        drawn = png(training_figure(histories))
    return _Picture(base64.b64encode(drawn).decode(), caption)


def _versions(out: Path) -> list[tuple[str, str]]:
    """What the runs were trained with: of runs from several machines it may be more than one."""
    found: dict[str, set[str]] = {}
    paths = [out / "config.json"] if is_finished(out) else sorted((out / "runs").glob("*/config.json"))
    for path in paths:
        for name, value in read_versions(path).items():
            found.setdefault(name, set()).add(value)
    return [(name, ", ".join(sorted(values))) for name, values in found.items()]
