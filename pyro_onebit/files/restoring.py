"""Dataclasses from what files say of their fields."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pyro_onebit.errors import InputError

T = TypeVar("T")


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
