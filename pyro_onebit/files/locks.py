"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pyro_onebit.errors import InputError
from pyro_onebit.files.writing import refuse_link


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Within, this process alone has a lock file.

    It is gone afterwards, unless the process was killed or the directory can no longer be written; one that is left
    locks nothing.

    Raises:
        InputError: If the file cannot be locked, or is another's: a lock of ours is empty.
    """
    held = _acquired(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        held.release()


def is_locked(path: Path) -> bool:
    """Whether a process has a lock file now.

    Raises:
        InputError: If it cannot be locked, or is another's.
    """
    if not path.exists():
        return False
    try:
        _acquired(path, timeout=0.0).release()
    except Timeout:
        return True
    return False


def _acquired(path: Path, timeout: float = -1.0) -> FileLock:
    refuse_link(path)
    if path.exists() and (not path.is_file() or path.stat().st_size):
        raise InputError(f"{path} is no lock of ours; move it, or choose another directory")
    own = FileLock(path)
    try:
        own.acquire(timeout=timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        # A file system without locks says so with 37 (ENOLCK), 38 (ENOSYS) or 95 (EOPNOTSUPP).
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot lock {path}: {reason}; choose a directory on a file system that has locks") from None
    return own
