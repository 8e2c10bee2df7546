"""A training's state on disk: what it takes to go on, to the last digit, as if it had never stopped."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pyro_onebit.config import Config
from pyro_onebit.data import InputError
from pyro_onebit.files import load_tensors, write_whole

__all__ = ["Progress"]

#: Seconds between two states. A run of the study takes a few, and needs none.
INTERVAL = 15.0
#: A state is a few times the parameters; no run of ours comes near, and a file above is not read into memory.
_MAX_BYTES = 2**32


class Progress:
    """Where a training keeps its state while it runs.

    A file that cannot be read, or is another configuration's, counts as none: the training begins anew, and its
    result is the same.

    Arguments:
        path: The file.
        config: What is trained.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._identity = repr((asdict(config), asdict(config.recipe)))
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        """The state last kept."""
        with suppress(InputError, TypeError, AttributeError):
            state = load_tensors(self._path, _MAX_BYTES)
            if state.pop("identity", None) == self._identity:
                return state
        return None

    def due(self) -> bool:
        """Whether it is time to keep another state."""
        return time.monotonic() - self._last >= INTERVAL

    def keep(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers, strings, lists and dictionaries; whole or not at all.

        Raises:
            WriteError: If it cannot be written.
        """
        content = io.BytesIO()
        torch.save({"identity": self._identity, **state}, content)
        write_whole(self._path, content.getvalue())
        self._last = time.monotonic()
