"""The `onebit` command."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from pyro_onebit.commands_run import BoundsCommand, DecodeCommand, EncodeCommand, EvaluateCommand
from pyro_onebit.commands_study import CompareCommand, GridCommand, ReportCommand, StudyCommand, TrainCommand
from pyro_onebit.data import InputError
from pyro_onebit.studyfile import read_study

__all__ = ["main"]


_COMMANDS: dict[str, Any] = {
    "study": StudyCommand,
    "train": TrainCommand,
    "evaluate": EvaluateCommand,
    "bounds": BoundsCommand,
    "compare": CompareCommand,
    "encode": EncodeCommand,
    "decode": DecodeCommand,
    "report": ReportCommand,
}


def _commands(arguments: Sequence[str]) -> Any:
    """All commands; the one asked for has what its file says, if there is one, for defaults."""
    files = [Path(after) for flag, after in itertools.pairwise(arguments) if flag == "--config"]
    files += [Path(argument.removeprefix("--config=")) for argument in arguments if argument.startswith("--config=")]
    commands = []
    for name, command in _COMMANDS.items():
        default: dict[str, Any] = {}
        if files and [name] == list(arguments[:1]) and issubclass(command, GridCommand):
            grid = read_study(files[-1])
            grid.configs()  # says what is out of range
            default["default"] = command(grid)
        commands.append(Annotated[command, tyro.conf.subcommand(name, **default)])
    return Union[tuple(commands)]  # noqa: UP007 - a union of what is only known here


def _is_text(line: str) -> bool:
    return bool(line.strip("-"))


def _parse(arguments: Sequence[str] | None) -> Any:
    """The command, with tyro's boxed complaint folded into one line."""
    complaint = io.StringIO()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    commands = _commands(arguments)
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                commands,
                prog="onebit",
                description=__doc__,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as end:
        if not end.code:
            raise
        # A title, then the message, then help: in a box, or with dashed rules if there is no UTF-8.
        lines = [line.strip("│╭╮╰╯─ ") for line in complaint.getvalue().splitlines()[1:]]
        message = itertools.takewhile(_is_text, itertools.dropwhile(lambda line: not _is_text(line), lines))
        # Where a whole dataclass is refused, tyro names it by a path of its own making.
        raise InputError(re.sub(r"^Error parsing __\S+: ", "", " ".join(message))) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if a computation failed; 2 for what the user got wrong; 130 if it was interrupted.
    """
    try:
        return int(_parse(arguments).run())
    except KeyboardInterrupt:
        print("error: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
