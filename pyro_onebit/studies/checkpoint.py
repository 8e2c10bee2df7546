"""A training's state on disk: what it takes to go on, to the last digit, as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pyro_onebit.errors import InputError
from pyro_onebit.files import read_whole, remove, write_whole
from pyro_onebit.training import Config

#: Seconds between two states.
INTERVAL = 15.0
#: Who wrote a file of tensors, as it says itself, and what such a file is recognised by.
WRITER = {"writer": "pyro_onebit"}
STATE_MARK = rb'"writer":"pyro_onebit"'


class StateFile:
    """Where a training keeps its state while it runs: tensors as safetensors, all else as JSON in the same file.

    One that is damaged or another configuration's counts as none: the training begins anew, and its result is the
    same. A file that is not ours is refused.

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
        with suppress(InputError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            content = read_whole(self._path)
            tensors = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            if header["digest"] == _digest(header["state"], tensors):
                state = _unpacked(json.loads(header["state"]), tensors)
                if state.pop("identity") == self._identity:
                    return dict(state)
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
        """Write a state of tensors, numbers, strings, lists and dictionaries with names; whole or not at all.

        Raises:
            InputError: If something is there that is no state.
            WriteError: If there was no room; then the state kept before stays.
        """
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_packed({"identity": self._identity, **state}, "", tensors), allow_nan=False)
        header = {**WRITER, "digest": _digest(text, tensors), "state": text}
        write_whole(self._path, save(tensors, header), STATE_MARK)
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove the state: the run is finished.

        Raises:
            WriteError: If it cannot be removed.
        """
        remove(self._path, STATE_MARK)


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value with, in each tensor's place, the order in which its dimensions lie in memory.

    A product of matrices has other last digits if one of them lies in memory the other way round.
    """
    if isinstance(value, Tensor):
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda dim: -strides[dim])
        tensors[name] = value.detach().cpu().permute(order).contiguous()
        return {_TENSOR: order}
    if isinstance(value, dict):
        return {key: _packed(part, f"{name}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_packed(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
    return value


#: No key of a state.
_TENSOR = ""


def _unpacked(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[name].permute(np.argsort(value[_TENSOR]).tolist())
        return {key: _unpacked(part, tensors, f"{name}/{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_unpacked(part, tensors, f"{name}/{i}") for i, part in enumerate(value)]
    return value


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """Of all that a state holds: a disk's fault in it must not go on into a result."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
