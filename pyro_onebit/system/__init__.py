"""The machine that this runs on: its memory, processes on it, and what is shown while one works."""

from pyro_onebit.system.display import Shown, progress
from pyro_onebit.system.memory import available_memory, check_memory
from pyro_onebit.system.processes import (
    Lost,
    StoppedError,
    imported_ahead,
    in_processes,
    no_signals_at_exit,
    stopped_by_signals,
)

__all__ = [
    "Lost",
    "Shown",
    "StoppedError",
    "available_memory",
    "check_memory",
    "imported_ahead",
    "in_processes",
    "no_signals_at_exit",
    "progress",
    "stopped_by_signals",
]
