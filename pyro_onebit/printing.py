"""What several commands print."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["print_figures", "print_json"]


def print_json(content: dict[str, Any]) -> None:
    """One JSON object; what is infinite must have become null before."""
    print(json.dumps(content, allow_nan=False))


def print_figures(metrics: dict[str, Any], errors: dict[str, float] | None = None) -> None:
    """A line a figure, with its numerical error where it is known."""
    for name, value in metrics.items():
        shown = f"{value:.8f}" if isinstance(value, float) else value
        print(f"{name:<18} {shown}" + (f"  ± {errors[name]:.0e}" if errors and name in errors else ""))
