"""Names for what can be chosen or brought: guides, models, objectives, recipes."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from pyro_onebit.errors import InputError

__all__ = [
    "GUIDES",
    "MODELS",
    "OBJECTIVES",
    "RECIPES",
    "REGISTRIES",
    "Registry",
    "Snapshot",
    "import_source",
    "imported_sources",
    "install",
    "origin_of",
    "snapshot",
]

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
        if name in self and _written_as(self[name]) != _written_as(entry):
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
            close = get_close_matches(str(name), self, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(
                f"{self.kind} is {name!r}; it must be one of {', '.join(sorted(self))}, or of what a file of yours "
                f"registers: `onebit --import FILE.py …`{hint}"
            )
        return self[name]


def _written_as(entry: Any) -> tuple[str, str]:
    """The module and the name of an entry's class or function."""
    made_by = getattr(entry, "make", entry)
    return str(getattr(made_by, "__module__", None)), str(getattr(made_by, "__qualname__", made_by))


def origin_of(entry: Any) -> str | None:
    """Where a class or function was written, by name only, as ``my_guides.LaplaceGuide``; None: here, or in Pyro."""
    made_by = getattr(entry, "make", entry)
    module, name = _written_as(getattr(made_by, "func", made_by))  # of a partial, what it is of
    if module.partition(".")[0] in (__name__.partition(".")[0], "pyro"):
        return None
    if module == "__main__":
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or module).stem
    return f"{module}.{name}"


#: Guide classes.
GUIDES: Registry[Any] = Registry("guide")
#: Model classes.
MODELS: Registry[Any] = Registry("model")
#: Training objectives (`training.Objective`).
OBJECTIVES: Registry[Any] = Registry("objective")
#: Functions that give the recipe for a number of layers.
RECIPES: Registry[Any] = Registry("preset")

#: All of them, by kind, which is also the name of a configuration's field.
REGISTRIES = {registry.kind: registry for registry in (MODELS, GUIDES, OBJECTIVES, RECIPES)}


#: What `import_source` has imported: names of modules, and absolute paths.
_IMPORTED: dict[str, None] = {}


def import_source(source: str) -> None:
    """Import a file, or a module by its name, so that what it registers is known, here and in worker processes.

    A file is imported as Python does it from the file's own directory: what lies beside it can be imported, too.

    Raises:
        InputError: If there is none, or it fails.
    """
    path = Path(source).resolve() if source.endswith(".py") else None
    if path is not None:
        if not path.is_file():
            raise InputError(f"cannot import {source}: there is no such file")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
    name = source if path is None else path.stem
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever a user's file does
        reason = " ".join(str(error).split())
        raise InputError(f"cannot import {source}: {type(error).__name__}: {reason}"[:400]) from error
    if path is not None and Path(str(module.__file__)).resolve() != path:
        raise InputError(f"cannot import {source}: there is another module {name!r}; give the file another name")
    _IMPORTED[source if path is None else str(path)] = None


def imported_sources() -> tuple[str, ...]:
    """What `import_source` has imported: names of modules, and absolute paths."""
    return tuple(_IMPORTED)


@dataclass(frozen=True)
class Snapshot:
    """All that is registered, to be handed to another process.

    Arguments:
        sources: What has to be imported first.
        entries: Each kind's names and entries, pickled: they may be of what is imported.
    """

    sources: tuple[str, ...]
    entries: bytes


def snapshot() -> Snapshot:
    """All that is registered here."""
    entries = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    return Snapshot(imported_sources(), cloudpickle.dumps(entries))


def install(registered: Snapshot) -> None:
    """Register here what a `snapshot` of another process holds."""
    for source in registered.sources:
        import_source(source)
    for kind, own in cloudpickle.loads(registered.entries).items():
        REGISTRIES[kind].update(own)
