"""How things are shown while one works with them: progress, a line, a table in a notebook."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from html import escape
from typing import Any


def progress(iterable: Iterable[Any] | None = None, *, quiet: bool, **settings: Any) -> Any:
    """A tqdm bar, unless it is to be quiet, or standard error is neither a terminal nor a notebook's.

    Arguments:
        iterable: What is gone through; None: the bar is updated by hand.
        quiet: Show none.
        settings: What else tqdm takes.
    """
    from tqdm.auto import tqdm  # not before it is needed: commands answer --help at once

    # tqdm itself sees no terminal in a notebook.
    in_notebook = type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
    return tqdm(iterable, disable=True if quiet else False if in_notebook else None, **settings)


#: A line has so many values at most.
_IN_A_LINE = 8


class Shown:
    """What is shown by names and values: the first ones in a line, and in a notebook all as a table."""

    def shown(self) -> dict[str, Any]:
        """The names and values; None is left out."""
        raise NotImplementedError

    def _formatted(self) -> dict[str, str]:
        return {
            name: f"{value:.5g}" if isinstance(value, float) else str(value)
            for name, value in self.shown().items()
            if value is not None
        }

    def __repr__(self) -> str:
        first = itertools.islice(self._formatted().items(), _IN_A_LINE)
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in first)})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in self._formatted().items())
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"
