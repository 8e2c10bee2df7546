"""What commands print."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pyro_onebit.reporting import format_value
from pyro_onebit.studies import COLUMNS, Column


def format_figures(metrics: Mapping[str, Any], errors: Mapping[str, float] | None = None) -> str:
    """A line for each figure, with its numerical error where it is known."""
    types = {column.name: column.type for column in COLUMNS}
    lines = []
    for name, value in metrics.items():
        shown = format_value(value, Column(name, type=types.get(name, float), format=".8f"))
        lines.append(f"{name:<18} {shown}" + (f"  ± {errors[name]:.0e}" if errors and name in errors else ""))
    return "\n".join(lines)


def write_json_line(content: Mapping[str, Any]) -> None:
    """One JSON object on standard output; what is infinite must have become None before."""
    print(json.dumps(content, allow_nan=False))


@contextlib.contextmanager
def nothing_else_printed() -> Iterator[None]:
    """Within, whatever a guide prints goes to standard error, in other processes too: standard output is for JSON."""
    try:
        out = sys.stdout.fileno()
    except (OSError, io.UnsupportedOperation):  # a stream in memory
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(out)
    os.dup2(sys.stderr.fileno(), out)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, out)
        os.close(kept)
