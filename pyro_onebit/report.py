"""A study or a comparison as one page for a reader: a single file that needs nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_onebit.data import InputError
from pyro_onebit.files import read_whole, write_whole
from pyro_onebit.page import figure, page, table
from pyro_onebit.plots import LAYER_COLOURS, LAYER_NAMES, legend, png
from pyro_onebit.runs import COLUMNS, read_metrics, read_table, read_versions
from pyro_onebit.studyfile import STUDY_FILE, read_study
from pyro_onebit.tables import CELL, SUMMARY, summarise

__all__ = ["training_figure", "write_report"]

NAME = "report.html"
_TITLES = {"results.csv": "Results", "comparison.csv": "Comparison", "failures.csv": "Failures"}
#: Of all columns, those that a reader looks at first; the file has the others.
_SHOWN = {
    "results.csv": (
        *("layers", "ndims", "prob", "guide", "objective", "seed", "loss", "optimum", "above", "recon_per_dim"),
        *("kl1", "kl2", "kl_posterior", "mutual_information", "kl_aggregate", "steps", "seconds"),
    ),
    "comparison.csv": (
        *("guide", "objective", "ndims", "seed", "loss", "gap_nats", "gap_bits", "kl_forward", "approximation"),
        *("amortisation", "bent", "wasserstein", "khat", "mutual_information", "parameters", "seconds"),
    ),
    "failures.csv": ("ndims", "layers", "guide", "objective", "seed", "reason"),
}
_CAPTIONS = (
    (
        r"loss",
        "Left: the reconstruction's cost per dimension. Right: the loss. Dashed and dotted are the families' "
        "limits, rings the original experiment's published estimates. With one dimension the latent is not "
        "worth its cost; with many it must carry the bit, and what a Gaussian cannot give back of it is the "
        "distance to the entropy.",
    ),
    (
        r"aggregate",
        "The aggregate posterior q(z) of the top latent for each number of dimensions, over the prior: where it is not "
        "the prior, bits are spent that buy nothing.",
    ),
    (
        r"posterior-layers(\d)-ndims(\d+)",
        "The top latent at n = {1}, {0}: q(z|x) of both codewords, the learned model's exact posterior, the truncated "
        "normal that an ideal posterior is, and the prior.",
    ),
    (r"posteriors(-\w+)?", "Each guide's q(z|x), filled, over the exact posterior of its model, dashed."),
    (r"loss-seconds", "The loss above the entropy against the seconds of training, a marker a run."),
)
#: Columns of words.
_WORDS = ("guide", "objective", "reason")
#: No figure, table or run's history of ours comes near.
_MAX_BYTES = 2**24
#: Training curves are drawn of at most so many runs.
_CURVES = 24
_LEAST = 1e-4


def write_report(out: Path) -> Path:
    """Write ``report.html`` into the directory of a study or a comparison, from what is there.

    Returns:
        The page's path.

    Raises:
        InputError: If there is no table, or something there is damaged.
    """
    tables = {name: _rows(out / name) for name in _TITLES if (out / name).exists()}
    if not tables:
        raise InputError(f"{out} holds no study: there is no results.csv or comparison.csv; run `onebit study` first")
    path = out / NAME
    parts = [
        *_lead(tables),
        *_asked(out, "compare" if "comparison.csv" in tables else "study"),
        *_summary(tables.get("results.csv", [])),
        *(part for name, rows in tables.items() for part in _table(name, rows)),
        *_figures(out),
        *_curves(out),
        *_versions(out),
    ]
    write_whole(path, page(f"{out.resolve().name}: the one-bit VAE", parts).encode())
    return path


def _rows(path: Path) -> list[dict[str, Any]]:
    """A table's rows; refused if it lacks a column, or has words where numbers are shown."""
    rows = read_table(path)
    columns = COLUMNS if path.name == "results.csv" else _SHOWN[path.name]
    lacking = [column for column in columns if rows and column not in rows[0]]
    if lacking:
        raise InputError(f"{path} is damaged: it lacks {', '.join(lacking)}")
    for row in rows:
        for column in columns:
            # What is not defined is left empty, where a table may lack it.
            wrong = isinstance(row[column], str) and (row[column] != "" or path.name == "results.csv")
            if column not in _WORDS and wrong:
                raise InputError(f"{path} is damaged: a {column} is {row[column][:40]!r}; it must be a number")
        if path.name == "results.csv":
            row["above"] = row["loss"] - row["optimum"]
    return rows


def _lead(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """How many runs there are, and how far from their limits the best and the worst end."""
    failed = len(tables.get("failures.csv", []))
    rows = tables.get("results.csv") or tables.get("comparison.csv") or []
    sentences = [f"{len(rows)} runs finished, {failed} failed. Losses are exact, by quadrature, in nats per datum."]
    what, column = ("its family's limit", "above") if tables.get("results.csv") else ("the entropy", "gap_nats")
    if rows:
        ends = [
            f"{row[column]:.5f} ({row['guide']}, n = {row['ndims']}, seed {row['seed']})"
            for row in (min(rows, key=lambda r: r[column]), max(rows, key=lambda r: r[column]))
        ]
        sentences.append(f"Above {what}, the best run ends {ends[0]}, the worst {ends[1]}.")
    return [f"<p>{html.escape(' '.join(sentences))}</p>"]


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row a cell, where cells have several seeds."""
    cells = summarise(rows)
    if len(cells) == len(rows):
        return []
    note = '<p class="note">worst, median, best: of the seeds, nats above the family\'s limit; seconds: the median.</p>'
    return ["<h2>Summary</h2>", table((*CELL, *SUMMARY), cells), note]


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    title = f"<h2>{_TITLES[name]}</h2>"
    if not rows:
        return [title, "<p>None.</p>"]
    more = f'<p class="note">All columns, with every digit: <code>{name}</code>. A click on a name sorts.</p>'
    return [title, table(_SHOWN[name], rows), more]


def training_figure(histories: Sequence[tuple[int, float, Sequence[Mapping[str, Any]]]]) -> Figure:
    """The estimated loss above the family's limit during training, a line a run.

    Arguments:
        histories: Of each run the number of layers, the limit in nats, and the rows of ``history.csv``.
    """
    chart = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = chart.subplots()
    for layers, limit, rows in histories:
        losses = [max(float(row["loss"]) - limit, _LEAST) for row in rows]
        share = [100.0 * step / max(1, len(rows) - 1) for step in range(len(rows))]
        axes.plot(
            share, losses, color=LAYER_COLOURS.get(layers, "0.4"), lw=0.9, alpha=0.8, label=LAYER_NAMES.get(layers)
        )
    axes.set(yscale="log", xlabel="share of the steps (%)", ylabel="estimated loss above the limit (nats)")
    axes.grid(color="0.93")
    legend(chart, loc="outside upper right", ncols=2)
    return chart


def _asked(out: Path, command: str) -> list[str]:
    path = out / STUDY_FILE
    if not path.exists():
        return []
    text = html.escape(read_study(path).to_toml())
    return [
        "<h2>What was asked</h2>",
        f"<pre>{text}</pre>",
        f"<p>Repeat it: <code>onebit {command} --config {STUDY_FILE}</code></p>",
    ]


def _figures(out: Path) -> list[str]:
    parts = []
    paths = sorted((out / "figures").glob("*.png"))
    for pattern, caption in _CAPTIONS:
        for path in paths:
            match = re.fullmatch(pattern, path.stem)
            if match:
                parts.append(figure(_bytes(path), caption.format(*_layers_in_words(match.groups()))))
    return ["<h2>Figures</h2>", *parts] if parts else []


def _layers_in_words(groups: Iterable[str | None]) -> list[str]:
    words = [group or "" for group in groups]
    return [LAYER_NAMES.get(int(words[0]), words[0]), words[1]] if len(words) == 2 else words


def _curves(out: Path) -> list[str]:
    histories = []
    paths = sorted((out / "runs").glob("*/metrics.json"))
    # Of many, some from everywhere in the grid.
    for path in paths[:: -(-len(paths) // _CURVES) or 1]:
        metrics, rows = read_metrics(path), read_table(path.parent / "history.csv")
        if rows and all(isinstance(row.get("loss"), (int, float)) for row in rows):
            histories.append((metrics["layers"], metrics["optimum"], rows))
    if not histories:
        return []
    which = "" if len(histories) == len(paths) else f"{len(histories)} of the {len(paths)} runs; "
    caption = (
        f"The loss during training, {which}above the family's limit. It is an estimate, noisy, and of the parameters "
        f"as they were; the table's losses are exact and final. What is below {_LEAST:g} is drawn there."
    )
    return ["<h2>Training</h2>", figure(png(training_figure(histories)), caption)]


def _versions(out: Path) -> list[str]:
    """What the runs were trained with: of runs from several machines it may be more than one."""
    found: dict[str, set[str]] = {}
    for path in sorted((out / "runs").glob("*/config.json")):
        for name, value in read_versions(path).items():
            found.setdefault(name, set()).add(value)
    cells = [(html.escape(name), html.escape(", ".join(sorted(values)))) for name, values in found.items()]
    rows = "".join(f"<tr><td>{name}</td><td>{values}</td></tr>" for name, values in cells)
    note = f'<p class="note">Of the training. This page was written by pyro-onebit {version("pyro-onebit")}.</p>'
    return ["<h2>Versions</h2>", f'<table class="plain"><tbody>{rows}</tbody></table>', note]


def _bytes(path: Path) -> bytes:
    return read_whole(path, _MAX_BYTES)
