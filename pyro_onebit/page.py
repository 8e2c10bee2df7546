"""The parts of a page that needs nothing else: text, tables that sort, pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyro_onebit.data import InputError

__all__ = ["figure", "page", "table"]


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table that sorts by a click on a column's name; empty where a row has nothing."""
    head = "".join(
        f'<th class="{_kind(rows[0].get(column))}"><button type="button">{column.replace("_", "_<wbr>")}</button></th>'
        for column in columns
    )
    body = "".join(f"<tr>{''.join(_cell(column, row.get(column)) for column in columns)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _kind(value: Any) -> str:
    return "text" if value and isinstance(value, str) else "number"


#: How a float is shown; others have five digits after the point.
_FORMATS = {"prob": "g", "lr": "g", "seconds": ".1f", "recon_per_dim": ".2e", "khat": ".2f", "collapsed": ".0%"}


def _cell(column: str, value: Any) -> str:
    if isinstance(value, (int, float)):
        shown = format(value, _FORMATS.get(column, ".5f")) if isinstance(value, float) else str(value)
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    words = ' class="words"' if column == "reason" else ""
    return f"<td{words}>{html.escape(str(value or ''))}</td>"


def figure(png: bytes, caption: str) -> str:
    """A picture and what it shows.

    Raises:
        InputError: If it is no PNG file.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise InputError("a figure of this study is no PNG file; run the study's command again to draw it")
    source = base64.b64encode(png).decode()
    text = html.escape(caption)
    return f'<figure><img src="data:image/png;base64,{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file: `title` is text, `parts` are HTML."""
    title = html.escape(title)
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
main { max-width: 78rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; break-after: avoid; }
.wide { overflow-x: auto; border: 1px solid #ddd; border-radius: 4px; max-height: 40rem; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
.wide table { min-width: 100%; }
th, td { padding: .3rem .5rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #eee; }
th { white-space: normal; vertical-align: bottom; }
td.words { white-space: normal; min-width: 16rem; }
td.number, th.number { text-align: right; }
th { position: sticky; top: 0; background: #f5f5f5; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
pre { background: #f5f5f5; padding: .75rem 1rem; border-radius: 4px; white-space: pre-wrap; font-size: .85rem; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; display: block; }
figcaption, .note { color: #555; font-size: .9rem; max-width: 60rem; }
@media print { @page { margin: 14mm 12mm; } main { max-width: none; padding: 0; } .note { display: none; }
  .wide { overflow: visible; max-height: none; border: 0; } tr { break-inside: avoid; } th { position: static; }
  table { font-size: 6.5pt; } .wide th, .wide td { padding: 1pt 2pt; } td.words { min-width: 0; }
  figure { margin: .75rem 0; } img { max-height: 95mm; width: auto; margin: 0 auto; } }
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
