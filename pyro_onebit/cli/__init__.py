"""The `onebit` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version

from pyro_onebit.cli.bounds import BoundsCommand
from pyro_onebit.cli.coding import DecodeCommand, EncodeCommand
from pyro_onebit.cli.evaluate import EvaluateCommand
from pyro_onebit.cli.output import nothing_else_printed, write_json_line
from pyro_onebit.cli.parser import Command, parse
from pyro_onebit.cli.report import ReportCommand
from pyro_onebit.cli.study import CompareCommand, StudyCommand
from pyro_onebit.cli.train import TrainCommand
from pyro_onebit.errors import InputError, TrainingError

__all__ = ["main"]

_COMMANDS: dict[str, type[Command]] = {
    "study": StudyCommand,
    "train": TrainCommand,
    "evaluate": EvaluateCommand,
    "bounds": BoundsCommand,
    "compare": CompareCommand,
    "encode": EncodeCommand,
    "decode": DecodeCommand,
    "report": ReportCommand,
}
_DOC = "The one-bit VAE: an exactly solvable testbed for amortised variational inference."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if a computation failed; 2 for what the user got wrong; 130 if it was interrupted.
    """
    try:
        about = f"pyro-onebit {version('pyro-onebit')}"
        command, as_json = parse(_COMMANDS, arguments, prog="onebit", doc=_DOC, version=about)
        with nothing_else_printed() if as_json else nullcontext():
            outcome = command.run()
        if as_json:
            write_json_line(outcome.content)
        else:
            print(outcome.text)
        return outcome.code
    except KeyboardInterrupt:
        print("error: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except (ArithmeticError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
