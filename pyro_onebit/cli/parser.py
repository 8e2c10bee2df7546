"""The command line, made from dataclasses: a field is an argument, its documentation the help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import DocstringMeta
from docstring_parser import parse as parse_docstring

from pyro_onebit.errors import InputError
from pyro_onebit.files import ordered_fields
from pyro_onebit.registry import import_source
from pyro_onebit.settings import OWN_NAMES


@dataclass(frozen=True)
class Outcome:
    """What a command has to say.

    Arguments:
        content: For ``--json``; what is infinite must have become None before.
        text: Otherwise.
        code: The exit code.
    """

    content: Mapping[str, Any]
    text: str
    code: int = 0


class Command:
    """A command: a dataclass whose fields are its arguments.

    Its documentation is its help; a section ``Examples:`` ends it, a line for each, and says how long it takes. A
    field's metadata may hold ``positional`` (true), ``metavar``, ``flag`` (its name on the command line; None: it has
    none), ``names`` and ``registered`` (values it may have: some names, or a registry's kind). Of a field that is a
    dataclass itself, the fields are arguments.
    """

    def run(self) -> Outcome:
        """Carry the command out."""
        raise NotImplementedError

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Defaults that other arguments bring, a value for each field that has another one than the class's own."""
        return {}


class _Help(argparse.HelpFormatter):
    """Help in which a line of examples stays one."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line[:1] == " " else fill(line, width, indent) for line in text.splitlines())


class _Parser(argparse.ArgumentParser):
    #: Every command and flag that there is.
    words: frozenset[str] = frozenset()

    def error(self, message: str) -> NoReturn:
        """What was asked for is wrong: one line says it, without usage, and what may have been meant."""
        wrong = re.search(r"(?:invalid choice: '|unrecognized arguments: )([\w-]+)", message)
        close = get_close_matches(wrong[1], self.words, 1) if wrong else []
        hint = f"; did you mean {close[0]}?" if close else ""
        message = re.sub(r"argument \{.*?: invalid choice: ('.*?') \(.*", r"\1 is no command", message)
        raise InputError(f"{message}{hint}; see `{self.prog} --help`")


def parse(
    commands: Mapping[str, type[Command]], arguments: Sequence[str] | None, *, prog: str, doc: str, version: str
) -> tuple[Command, bool]:
    """The command that a command line asks for, and whether its outcome is to be JSON.

    Raises:
        InputError: If it asks for nothing that there is.
    """
    parser = _Parser(prog=prog, description=doc, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE.py",
        help="Import a file of yours (or a module, by its name) first, so that the guides, models, objectives and "
        "recipes that it registers are known; may be given several times.",
    )
    names = parser.add_subparsers(
        required=True, dest="command", metavar="{" + ",".join(commands) + "}", title="commands"
    )
    for name, kind in commands.items():
        about = parse_docstring(kind.__doc__ or "")
        own = names.add_parser(
            name,
            help=_in_a_line(about.short_description),
            description=_in_a_line(about.description),
            epilog="\n".join(["examples:", *(f"  {line}" for own in about.examples for line in _lines(own))]),
            formatter_class=_Help,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        _add_fields(own, kind, {})
        own.add_argument("--json", action="store_true", help="Print one JSON object.")
        parser.words |= {name, *own._option_string_actions}
    given = vars(parser.parse_args(arguments))
    for source in given.pop("imports"):
        import_source(source)
    command = commands[given.pop("command")]
    as_json = bool(given.pop("json", False))
    return _made(command, given, command.defaults(given)), as_json


def _in_a_line(text: str | None) -> str:
    """Prose without the marks of code."""
    return " ".join((text or "").replace("`", "").split())


def _lines(example: DocstringMeta) -> list[str]:
    return (example.description or "").splitlines()


def _documented(kind: type) -> dict[str, str]:
    """What a dataclass and those that it extends say of their fields."""
    return {
        parameter.arg_name: _in_a_line(parameter.description)
        for base in reversed(kind.__mro__)
        for parameter in parse_docstring(base.__doc__ or "").params
    }


def _default(field: Field[Any], base: Mapping[str, Any]) -> Any:
    """A field's value in `base`, or else its own default."""
    return base.get(field.name, field.default_factory() if callable(field.default_factory) else field.default)


def _add_fields(parser: argparse.ArgumentParser, kind: Any, base: Mapping[str, Any]) -> None:
    types, documented = get_type_hints(kind), _documented(kind)
    for field in ordered_fields(kind):
        of, default = types[field.name], _default(field, base)
        if is_dataclass(of):
            _add_fields(parser, of, vars(default))
            continue
        about = documented.get(field.name, "")
        if names := _names(of, field.metadata):
            about += f" Choices: {', '.join(names)}{'; --import adds others' * ('registered' in field.metadata)}."
        if default not in (MISSING, None, ()) and not isinstance(default, bool):
            about += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
        settings: dict[str, Any] = {"help": about.replace("%", "%%"), **_reading(of)}
        if "metavar" in field.metadata:
            settings["metavar"] = field.metadata["metavar"]
        if field.metadata.get("positional"):
            parser.add_argument(field.name, **settings)
        else:
            flag = field.metadata.get("flag", f"--{field.name.replace('_', '-')}")
            if flag is None:
                continue
            parser.add_argument(flag, dest=field.name, required=default is MISSING, **settings)


def _names(kind: Any, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What a field may be, if it is one name, or several, of a few."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return OWN_NAMES[metadata["registered"]] if "registered" in metadata else metadata.get("names", ())


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads values of a type."""
    if isinstance(kind, UnionType):
        [kind] = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is tuple:
        return {**_reading(get_args(kind)[0]), "nargs": "+"}
    if kind is bool:
        return {"action": "store_true"}
    return {"type": _READERS.get(kind, str), "metavar": _METAVARS.get(kind, "NAME")}


def _reader(kind: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what}") from None

    return read


_READERS: dict[Any, Any] = {int: _reader(int, "a whole number"), float: _reader(float, "a number"), Path: Path}
_METAVARS: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}


def _made(kind: Any, given: Mapping[str, Any], base: Mapping[str, Any]) -> Any:
    """A dataclass with what was given, and otherwise with the values of `base`."""
    types, values = get_type_hints(kind), {}
    for field in fields(kind):
        default = _default(field, base)
        if is_dataclass(types[field.name]):
            values[field.name] = _made(types[field.name], given, vars(default))
        elif field.name in given:
            value = given[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        elif default is not MISSING:
            values[field.name] = default
    return kind(**values)
