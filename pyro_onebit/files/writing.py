"""Files that are written whole or not at all, and never in place of what is not ours."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_onebit.errors import InputError, WriteError

if TYPE_CHECKING:
    import pandas as pd

#: A mark stands within so many first bytes.
_HEAD = 2**22


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


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link where something of ours is to be: it may lead anywhere.

    Raises:
        InputError: If it is one.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link; remove it, or name what it leads to")


def claim(path: Path, mark: bytes | None, *, force: bool = False) -> None:
    """Find out whether a file may be written: there is none, it is empty, or ours as its content says.

    Arguments:
        path: The file.
        mark: A pattern that is found in the first bytes of each file of ours of this kind; None: of no file.
        force: Remove a file that is not ours. Links, directories, pipes and devices are refused all the same.

    Raises:
        InputError: If it may not be written.
    """
    refuse_link(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is a {_KINDS.get(stat.S_IFMT(mode), 'device')}, not a file; choose another name")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; choose another name") from None
    if not head.strip(b'"\r\n') or (mark is not None and re.search(mark, head)):
        return
    if force:
        path.unlink()
    else:
        raise InputError(f"{path} exists and is not ours; choose another name, or replace it with --force")


_KINDS = {stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def remove(path: Path, mark: bytes) -> None:
    """Remove a file of ours, if it is there.

    Raises:
        InputError: If it is not ours (`claim`).
        WriteError: If it cannot be removed.
    """
    claim(path, mark)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot remove {path}: {error.strerror}") from None


def write_whole(path: Path, content: bytes, mark: bytes | None = None, *, force: bool = False) -> None:
    """Write a file so that a reader, or a crash, finds all of it or what was there before.

    Its mode is what was there before, or as the umask says.

    Arguments:
        path: The file.
        content: Its content.
        mark: Of what else may be there before: see `claim`.
        force: Whether it is replaced all the same.

    Raises:
        InputError: If something is there that is not ours.
        WriteError: If the directory cannot be written.
    """
    claim(path, b"" if force else mark)
    # Short, for the file's own name may be as long as names can be.
    temporary = path.parent / f".onebit-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; choose a directory that can be written") from None
    try:
        with os.fdopen(handle, "wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; what was there before is kept") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; floats keep every digit, and what is not there is empty.

    Raises:
        InputError: If something is there that is no such table.
        WriteError: If the directory cannot be written.
    """
    content = table.to_csv(index=False, lineterminator="\n").encode(errors="backslashreplace")
    write_whole(path, content, table_mark([str(name) for name in table]))


def table_mark(columns: Sequence[str]) -> bytes:
    """What a table is recognised by: it begins with the same two columns."""
    return rb"\A" + re.escape(",".join(columns[:2])).encode()


def write_json(path: Path, content: Mapping[str, Any], mark: bytes) -> None:
    """Write one JSON object.

    Raises:
        InputError: If something is there that is not ours (`claim`).
        WriteError: If the directory cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), mark)
