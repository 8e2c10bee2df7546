"""Files that are written whole or not at all, and what they can hold."""

from __future__ import annotations

import io
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pyro_onebit.data import InputError

__all__ = ["WriteError", "check_writable", "finite", "held", "is_held", "load_tensors", "read_whole", "write_whole"]


class WriteError(InputError):
    """A file cannot be written: no space, no permission; what was there before is kept."""


def check_writable(directory: Path) -> None:
    """Make a directory, and find out before a training, not after it, if nothing can be written there.

    Raises:
        InputError: If the directory cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror}; choose another directory with --out") from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"cannot write {directory}: permission denied; choose another directory with --out")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Within, this process alone has a lock file. It is gone afterwards, but for a process that was killed."""
    with FileLock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process has a lock file now."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def read_whole(path: Path, limit: int | None = None) -> bytes:
    """A file's content.

    Raises:
        InputError: If it cannot be read, or has more bytes than `limit`: then none is taken into memory.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"cannot read {path}: it is a pipe or a device, not a file")
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise InputError(f"{path} has {size} bytes; no such file of ours is that large")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def load_tensors(path: Path, limit: int) -> dict[str, Any]:
    """What `torch.save` wrote of tensors, numbers, strings, lists and dictionaries; nothing in it is executed.

    Arguments:
        path: The file.
        limit: Bytes that it may unpack to; what claims more is not unpacked.

    Raises:
        InputError: If it cannot be read, is damaged, or unpacks to more.
    """
    content = io.BytesIO(read_whole(path, limit))
    try:
        with zipfile.ZipFile(content) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= limit:
            content.seek(0)
            loaded: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
            return loaded
    except Exception as error:  # torch.load raises whatever the damage leads it to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} is damaged: {reason[0][:120]}") from None
    raise InputError(f"{path} is damaged: it unpacks to {size} bytes, where {limit} are the most it can have")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds all of it or what was there before.

    Raises:
        WriteError: If the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; choose a directory that can be written") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp makes files that only their owner reads
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise WriteError(f"cannot write {path}: {error.strerror}; what was there before is kept") from None


def finite(value: Any) -> float | None:
    """A number as a file can hold it: None if it is infinite or not defined, for which JSON has no words."""
    number = float(value)
    return number if math.isfinite(number) else None
