"""Files that are written whole or not at all, and what they can hold."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import pandas as pd
import torch
from filelock import FileLock, Timeout

from pyro_onebit.errors import InputError, WriteError

__all__ = [
    "check_writable",
    "is_locked",
    "load_tensors",
    "lock",
    "ordered_fields",
    "read_json",
    "read_table",
    "read_whole",
    "restored",
    "write_json",
    "write_table",
    "write_whole",
]

T = TypeVar("T")

#: No table and no JSON file of ours comes near; one above is not read into memory.
_MAX_TEXT_BYTES = 64 * 2**20


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
def lock(path: Path) -> Iterator[None]:
    """Within, this process alone has a lock file. It is gone afterwards, but for a process that was killed."""
    with FileLock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
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


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; floats keep every digit, and what is not there is empty.

    Raises:
        WriteError: If the directory cannot be written.
    """
    write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file, numbers to the same digits.

    Raises:
        InputError: If it cannot be read, or is no table.
    """
    content = io.BytesIO(read_whole(path, _MAX_TEXT_BYTES))
    try:
        # As text, for Python's own reading of numbers is exact, and pandas' is not in every version.
        texts = pd.read_csv(content, header=None, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:  # a table of no columns
        return pd.DataFrame()
    except (ValueError, OverflowError) as error:  # what pandas raises for a file that is no table, or no text
        raise InputError(f"{path} is damaged ({str(error).strip()[:120]})") from None
    names, *lines = texts.itertuples(index=False, name=None)
    columns = zip(*lines, strict=True) if lines else ((),) * len(names)
    return pd.DataFrame({name: [_parsed(text) for text in column] for name, column in zip(names, columns, strict=True)})


def _parsed(text: Any) -> Any:
    """A number if the text is one; None if it is empty, or the line ended before it."""
    if not isinstance(text, str) or not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object.

    Raises:
        WriteError: If the directory cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        InputError: If it cannot be read, or is none.
    """
    text = read_whole(path, _MAX_TEXT_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON ({str(error)[:120]})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds a {type(content).__name__}, not an object")
    return content


def ordered_fields(kind: Any) -> list[Field[Any]]:
    """A dataclass's fields as people read them: keyword-only ones, which it has in common with others, come last."""
    return sorted(fields(kind), key=lambda f: bool(f.kw_only))


def restored(kind: type[T], content: Any, what: str) -> T:
    """A dataclass from what a file says of its fields; what is missing takes its default.

    Arguments:
        kind: The dataclass, whose fields may be dataclasses.
        content: The file's object.
        what: What errors call it.

    Raises:
        InputError: If there is a name that is no field, a value of a wrong type, or a field without default is missing.
    """
    if not isinstance(content, dict):
        raise InputError(f"{what} is {repr(content)[:60]}, not an object")
    types, known = get_type_hints(kind), {f.name: f for f in ordered_fields(kind)}
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in known:
            raise InputError(f"{what} has {str(name)[:40]!r}; it may have {', '.join(known)}")
        if is_dataclass(types[name]):
            values[name] = restored(types[name], value, name)
        elif _fits(types[name], value):
            values[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise InputError(f"{name} is {repr(value)[:60]}; it must be {_in_words(types[name])}")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"{what} lacks {name}")
    return kind(**values)


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(part, value) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(get_args(kind)[0], part) for part in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _in_words(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(map(_in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_WORDS[get_args(kind)[0]].removeprefix('a ')}s"
    return _WORDS.get(kind, "null")


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}
