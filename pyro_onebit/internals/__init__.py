"""What is relied on of other libraries' internals, which they do not promise; each has a test that says what."""

from pyro_onebit.internals.graph import keep_freed_memory, record
from pyro_onebit.internals.masks import WhereForMasks
from pyro_onebit.internals.traces import AdjustedTraces, OwnWakeSleep, Traces, particle_traces, sample_sites
from pyro_onebit.internals.uncompiled import Adam, Uncompiled

__all__ = [
    "Adam",
    "AdjustedTraces",
    "OwnWakeSleep",
    "Traces",
    "Uncompiled",
    "WhereForMasks",
    "keep_freed_memory",
    "particle_traces",
    "record",
    "sample_sites",
]
