"""Names for what can be chosen or brought: guides, models, objectives, recipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pyro_onebit.errors import InputError

__all__ = ["GUIDES", "MODELS", "OBJECTIVES", "RECIPES", "Registry", "install", "origin_of", "snapshot"]

T = TypeVar("T")
E = TypeVar("E")


class Registry(dict[str, T]):
    """What can be chosen by name, of one kind.

    Arguments:
        kind: What errors call an entry.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        #: Called with a name and its entry before it is added; refuses what cannot be one.
        self.check: Callable[[str, Any], None] = lambda name, entry: None

    def add(self, name: str, entry: T) -> None:
        """Make an entry known by a name.

        The same class or function registered again (same module and qualified name), as when a cell of a notebook is
        run twice, replaces what was there.

        Raises:
            InputError: If the name is another entry's, or is not of letters, digits, ``_`` and ``-``: directories are
                named after it.
        """
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"{self.kind} {name!r} cannot be called that; take letters, digits, '_' and '-'")
        if name in self and origin_of(self[name]) != origin_of(entry):
            raise InputError(f"{self.kind} {name!r} is already registered; choose another name")
        self.check(name, entry)
        self[name] = entry

    def register(self, name: str) -> Callable[[E], E]:
        """A decorator that makes the class or function below it known by a name (`add`)."""

        def add(entry: E) -> E:
            self.add(name, entry)  # type: ignore[arg-type]
            return entry

        return add

    def find(self, name: Any) -> T:
        """The entry of a name.

        Raises:
            InputError: If there is none.
        """
        if name not in self:
            raise InputError(f"{self.kind} is {name!r}; it must be one of {', '.join(sorted(self))}")
        return self[name]


def origin_of(entry: Any) -> tuple[str, str]:
    """Where an entry's class or function was written."""
    made_by = getattr(entry, "make", entry)
    return str(getattr(made_by, "__module__", None)), str(getattr(made_by, "__qualname__", made_by))


#: Guide classes.
GUIDES: Registry[Any] = Registry("guide")
#: Model classes.
MODELS: Registry[Any] = Registry("model")
#: Training objectives (`training.Objective`).
OBJECTIVES: Registry[Any] = Registry("objective")
#: Functions that give the recipe for a number of layers.
RECIPES: Registry[Any] = Registry("preset")

_ALL = {registry.kind: registry for registry in (GUIDES, MODELS, OBJECTIVES, RECIPES)}


def snapshot() -> dict[str, dict[str, Any]]:
    """All that is registered, to be handed to another process."""
    return {kind: dict(registry) for kind, registry in _ALL.items()}


def install(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Register here what a `snapshot` of another process holds."""
    for kind, own in entries.items():
        _ALL[kind].update(own)
