"""A training's state on disk: what it takes to go on, to the last digit, as if it had never stopped."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pyro_onebit.errors import InputError
from pyro_onebit.files import load_tensors, write_whole
from pyro_onebit.training import Config

#: Seconds between two states.
INTERVAL = 15.0
#: A state is a few times the parameters; no run of ours comes near, and a file above is not read into memory.
_MAX_BYTES = 2**32


class StateFile:
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
        # The first step's state is kept at once.
        self._last = -math.inf

    def restore(self) -> dict[str, Any] | None:
        """The state last kept."""
        with suppress(InputError, TypeError, AttributeError):
            state = load_tensors(self._path, _MAX_BYTES)
            if state.pop("identity", None) == self._identity:
                return state
        return None

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Within, a state is put in place; what does not fit there is no state of this training.

        Raises:
            InputError: If it does not fit.
        """
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._path} is damaged ({type(error).__name__}); delete it, and the training begins anew"
            ) from None

    def due(self) -> bool:
        """Whether it is time to keep another state."""
        return time.monotonic() - self._last >= INTERVAL

    def keep(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers, strings, lists and dictionaries; whole or not at all.

        Raises:
            WriteError: If there was no room; then the state kept before stays.
        """
        buffer = io.BytesIO()
        torch.save({"identity": self._identity, **state}, buffer)
        write_whole(self._path, buffer.getvalue())
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove the state: the run is finished."""
        self._path.unlink(missing_ok=True)
