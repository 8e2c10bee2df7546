"""A study or a comparison as one page for a reader: a single file that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_onebit.data import InputError
from pyro_onebit.files import read_whole, write_whole
from pyro_onebit.plots import LAYER_COLOURS, LAYER_NAMES, legend, png
from pyro_onebit.runs import read_metrics, read_table, read_versions
from pyro_onebit.studyfile import STUDY_FILE, read_study

__all__ = ["training_figure", "write_report"]

NAME = "report.html"
_TABLES = {"results.csv": "Results", "comparison.csv": "Comparison", "failures.csv": "Failures"}
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
    tables = {name: read_table(out / name) for name in _TABLES if (out / name).exists()}
    if not tables:
        raise InputError(
            f"{out} holds no study: there is no {' or '.join(list(_TABLES)[:2])}; run `onebit study` first"
        )
    for name, rows in tables.items():
        _check(out / name, rows)
    for row in tables.get("results.csv", []):
        row["above"] = row["loss"] - row["optimum"]
    runs = [row for name in ("results.csv", "comparison.csv") for row in tables.get(name, [])]
    failed = len(tables.get("failures.csv", []))
    parts = [
        f"<p>{len(runs)} runs, {failed} failed. Losses are exact, by quadrature, in nats per datum.</p>",
        *_asked(out, "compare" if "comparison.csv" in tables else "study"),
        *(part for name, rows in tables.items() for part in _table(name, rows)),
        *_figures(out),
        *_curves(out),
        *_versions(out),
    ]
    path = out / NAME
    write_whole(path, _page(out.resolve().name, parts).encode())
    return path


def _check(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a table that lacks a column, or has words where numbers are shown."""
    columns = [column for column in _SHOWN[path.name] if column != "above"]
    lacking = [column for column in columns if rows and column not in rows[0]]
    if lacking:
        raise InputError(f"{path} is damaged: it lacks {', '.join(lacking)}")
    for row in rows:
        for column in columns:
            # What is not defined is left empty, where a table may lack it.
            wrong = isinstance(row[column], str) and (row[column] != "" or path.name == "results.csv")
            if column not in _WORDS and wrong:
                raise InputError(f"{path} is damaged: a {column} is {row[column][:40]!r}; it must be a number")


def training_figure(histories: Mapping[str, tuple[int, Sequence[Mapping[str, Any]]]], entropy: float) -> Figure:
    """The estimated loss above the entropy during training, a line a run.

    Arguments:
        histories: Name to the number of layers and the rows of ``history.csv``.
        entropy: Nats.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for layers, rows in histories.values():
        losses = [max(float(row["loss"]) - entropy, _LEAST) for row in rows]
        share = [100.0 * step / max(1, len(rows) - 1) for step in range(len(rows))]
        axes.plot(
            share, losses, color=LAYER_COLOURS.get(layers, "0.4"), lw=0.9, alpha=0.8, label=LAYER_NAMES.get(layers)
        )
    axes.set(yscale="log", xlabel="share of the steps (%)", ylabel="estimated loss above the entropy (nats)")
    axes.grid(color="0.93")
    legend(figure, loc="outside upper right", ncols=2)
    return figure


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


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    title = f"<h2>{_TABLES[name]}</h2>"
    if not rows:
        return [title, "<p>None.</p>"]
    columns = _SHOWN[name]
    head = "".join(
        f'<th class="{_kind(rows[0][column])}"><button type="button">{column}</button></th>' for column in columns
    )
    body = "".join(f"<tr>{''.join(_cell(column, row.get(column)) for column in columns)}</tr>\n" for row in rows)
    more = f'<p class="note">All columns, with every digit: <code>{name}</code>. A click on a name sorts.</p>'
    return [title, f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>', more]


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "number"


def _cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        small = value != 0.0 and abs(value) < 1e-3
        shown = f"{value:g}" if column == "prob" else f"{value:.1f}" if column == "seconds" else f"{value:.5f}"
        shown = f"{value:.2e}" if small else shown
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    if isinstance(value, int):
        return f'<td class="number" data-value="{value}">{value}</td>'
    return f"<td>{html.escape(str(value or ''))}</td>"


def _figures(out: Path) -> list[str]:
    parts = []
    paths = sorted((out / "figures").glob("*.png"))
    for pattern, caption in _CAPTIONS:
        for path in paths:
            match = re.fullmatch(pattern, path.stem)
            if match:
                parts.append(_figure(_bytes(path), caption.format(*_layers_in_words(match.groups()))))
    return ["<h2>Figures</h2>", *parts] if parts else []


def _layers_in_words(groups: Iterable[str | None]) -> list[str]:
    words = [group or "" for group in groups]
    return [LAYER_NAMES.get(int(words[0]), words[0]), words[1]] if len(words) == 2 else words


def _figure(png: bytes, caption: str) -> str:
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise InputError("a figure of this study is no PNG file; run the study's command again to draw it")
    source = base64.b64encode(png).decode()
    text = html.escape(caption)
    return f'<figure><img src="data:image/png;base64,{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _curves(out: Path) -> list[str]:
    histories: dict[str, tuple[int, list[dict[str, Any]]]] = {}
    entropy = 0.0
    paths = sorted((out / "runs").glob("*/metrics.json"))
    # Of many, some from everywhere in the grid.
    for path in paths[:: -(-len(paths) // _CURVES) or 1]:
        metrics = read_metrics(path)
        layers, entropy = metrics["layers"], metrics["entropy"]
        rows = read_table(path.parent / "history.csv")
        if rows and all(isinstance(row.get("loss"), (int, float)) for row in rows):
            histories[path.parent.name] = (layers, rows)
    if not histories:
        return []
    which = f"all {len(paths)}" if len(histories) == len(paths) else f"{len(histories)} of the {len(paths)}"
    caption = (
        f"The loss as estimated during training, of {which} runs. It is noisy and of the parameters as they "
        "were; the table's losses are exact and final."
    )
    return ["<h2>Training</h2>", _figure(png(training_figure(histories, entropy)), caption)]


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


def _page(name: str, parts: Iterable[str]) -> str:
    title = f"{html.escape(name)}: the one-bit VAE"
    # Nothing is fetched from anywhere, and the browser is told not to.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
        + "\n".join(parts)
        + f"\n</main><script>{_SCRIPT}</script></body></html>\n"
    )


_STYLE = """
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; border: 1px solid #ddd; border-radius: 4px; max-height: 40rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
.wide table { min-width: 100%; }
th, td { padding: .3rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #eee; }
td.number, th.number { text-align: right; }
th { position: sticky; top: 0; background: #f5f5f5; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
pre { background: #f5f5f5; padding: .75rem 1rem; border-radius: 4px; overflow-x: auto; font-size: .85rem; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; display: block; }
figcaption, .note { color: #555; font-size: .9rem; max-width: 60rem; }
@media print { main { max-width: none; padding: 0; } .wide { overflow: visible; max-height: none; border: 0; }
  table { font-size: 6.5pt; } th, td { padding: 1pt 3pt; white-space: normal; } th { position: static; }
  .note { display: none; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, row = head.parentElement, body = row.closest("table").tBodies[0];
  const column = [...row.children].indexOf(head), up = head.getAttribute("aria-sort") !== "ascending";
  const value = tr => { const td = tr.children[column];
    return "value" in td.dataset ? Number(td.dataset.value) : td.textContent; };
  for (const other of row.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...[...body.rows].sort((a, b) => { const x = value(a), y = value(b);
    return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); }));
});
"""
