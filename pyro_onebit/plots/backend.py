"""matplotlib, whatever backend the environment names: a figure here is written to a file, and needs none."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# A notebook names its own backend to the commands that it runs, which may be of an environment that has not got it.
_named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)

import matplotlib as matplotlib  # noqa: E402

if _named is not None:
    os.environ["MPLBACKEND"] = _named
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _named
