"""What the world outside may do to a command, by kind: each module tries one kind and gives a row for each attempt."""

from trials.common import FAULTS, Row, Section, answer, summarise
from trials.forged import containers, files, states
from trials.limits import settings, sizes
from trials.outputs import outputs
from trials.processes import guides, kills, odd, signals
from trials.surroundings import strangers, surroundings
from trials.terminals import terminals

#: Every kind by its name, in the order in which they are tried.
SECTIONS: dict[str, Section] = {
    "outputs": outputs,
    "states": states,
    "containers": containers,
    "files": files,
    "sizes": sizes,
    "settings": settings,
    "terminals": terminals,
    "guides": guides,
    "signals": signals,
    "kills": kills,
    "odd": odd,
    "surroundings": surroundings,
    "strangers": strangers,
}

__all__ = ["FAULTS", "SECTIONS", "Row", "answer", "summarise"]
