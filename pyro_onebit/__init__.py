"""The one-bit VAE: an exactly solvable testbed for amortised variational inference."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_onebit import bounds as bounds
    from pyro_onebit import coding as coding
    from pyro_onebit import diagnostics as diagnostics
    from pyro_onebit import exact as exact
    from pyro_onebit import plots as plots
    from pyro_onebit._face import *  # noqa: F403

    __version__: str

#: Rooms that are attributes of the package.
_ROOMS = ("bounds", "coding", "diagnostics", "exact", "plots")


def __getattr__(name: str) -> Any:
    """What is public is imported when it is first asked for: the command answers `--help` without torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pyro-onebit")
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__all__" or not name.startswith("_"):
        face = importlib.import_module(f"{__name__}._face")
        if name == "__all__":
            return sorted([*face.__all__, *_ROOMS])
        if name in face.__all__:
            return getattr(face, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__"), "__version__"})
