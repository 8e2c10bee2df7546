"""The machine that this runs on, and a cluster: memory, processes, and what is shown while one works."""

from pyro_onebit.system.cluster import connected, on_cluster
from pyro_onebit.system.display import Shown, progress
from pyro_onebit.system.memory import available_memory, check_memory, uncollected
from pyro_onebit.system.processes import Lost, imported_ahead, in_processes
from pyro_onebit.system.signals import StoppedError, quick_exit, stopped_by_signals

__all__ = [
    "Lost",
    "Shown",
    "StoppedError",
    "available_memory",
    "check_memory",
    "connected",
    "imported_ahead",
    "in_processes",
    "on_cluster",
    "progress",
    "quick_exit",
    "stopped_by_signals",
    "uncollected",
]
