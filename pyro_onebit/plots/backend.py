"""matplotlib, whatever backend the environment names: a figure here is written to a file, and needs none."""

from __future__ import annotations

import os

try:
    import matplotlib as matplotlib
except ValueError:
    # As where a notebook runs a command, of another environment that has not got the notebook's backend.
    _named = os.environ.pop("MPLBACKEND", "")
    import matplotlib as matplotlib

    os.environ["MPLBACKEND"] = _named
