"""Files: read with a limit, written whole or not at all, locked, and never in place of what is not ours."""

from pyro_onebit.files.locks import is_locked, lock
from pyro_onebit.files.reading import read_json, read_table, read_whole
from pyro_onebit.files.restoring import ordered_fields, restored
from pyro_onebit.files.writing import (
    check_writable,
    claim,
    refuse_link,
    remove,
    table_mark,
    write_json,
    write_table,
    write_whole,
)

__all__ = [
    "check_writable",
    "claim",
    "is_locked",
    "lock",
    "ordered_fields",
    "read_json",
    "read_table",
    "read_whole",
    "refuse_link",
    "remove",
    "restored",
    "table_mark",
    "write_json",
    "write_table",
    "write_whole",
]
