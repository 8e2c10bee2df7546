"""What files hold, read with a limit."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_onebit.errors import InputError
from pyro_onebit.system import check_memory

if TYPE_CHECKING:
    import pandas as pd

#: No table and no JSON file of ours comes near; one above is not read into memory.
_MAX_TEXT_BYTES = 64 * 2**20


def read_whole(path: Path, limit: int | None = None, *, magic: bytes = b"", copies: float = 1.0) -> bytes:
    """A file's content.

    Arguments:
        path: The file.
        limit: Bytes that it may have.
        magic: What it begins with.
        copies: Memory that its reader takes, in bytes for each of the file's.

    Raises:
        InputError: If it cannot be read, begins with something else, has more bytes than `limit`, or needs more memory
            than there is: then it is not taken into memory.
    """
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(f"cannot read {path}: it is a pipe or a device, not a file")
        if limit is not None and size > limit:
            raise InputError(f"{path} has {size} bytes; no such file of ours is that large")
        with path.open("rb") as file:
            head = file.read(len(magic))
            if head != magic:
                raise InputError(f"{path} is not what was expected: it does not begin with {magic!r}")
            check_memory(copies * size, f"{path}, of {size} bytes,")
            return head + file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_table(path: Path, limit: int = _MAX_TEXT_BYTES) -> pd.DataFrame:
    """Read a CSV file, numbers to the same digits.

    Raises:
        InputError: If it cannot be read, has more bytes than `limit`, or is no table.
    """
    import pandas as pd

    content = read_whole(path, limit)
    try:
        # By Python, whose reading of numbers is exact (pandas' is not in every version), and line by line: millions of
        # short texts at once would take a hundred times the file's size.
        lines = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        names = next(lines, [])
        columns: list[list[Any]] = [[] for _ in names]
        for line in filter(None, lines):
            if len(line) != len(names):
                raise ValueError(f"line {lines.line_num} has {len(line)} values for {len(names)} columns")
            for column, text in zip(columns, line, strict=True):
                column.append(_parsed(text))
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({str(error).strip()[:120]})") from None
    if len(set(names)) < len(names):
        raise InputError(f"{path} is damaged (two columns have one name)")
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _parsed(text: str) -> Any:
    """A number if the text is one; None if it is empty.

    Raises:
        ValueError: If it is a whole number of more than 64 bits.
    """
    if not text:
        return None
    if (digits := text.removeprefix("-")).isdecimal():
        if len(digits) > 19 or int(digits) >= 2**63:
            raise ValueError(f"a whole number has {len(digits)} digits")
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


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
