"""The `onebit` command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version

from pyro_onebit.cli.bounds import BoundsCommand
from pyro_onebit.cli.coding import DecodeCommand, EncodeCommand
from pyro_onebit.cli.evaluate import EvaluateCommand
from pyro_onebit.cli.output import any_terminal, nothing_else_printed, say, write_result
from pyro_onebit.cli.pages import ExploreCommand, ReportCommand
from pyro_onebit.cli.parser import Command, parse
from pyro_onebit.cli.study import CompareCommand, DemoCommand, StudyCommand
from pyro_onebit.cli.train import TrainCommand
from pyro_onebit.errors import InputError, TrainingError
from pyro_onebit.system import quick_exit, stopped_by_signals

__all__ = ["main"]

_COMMANDS: dict[str, type[Command]] = {
    "demo": DemoCommand,
    "explore": ExploreCommand,
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
        The exit code: 0; 1 if a computation failed; 2 for what the user got wrong; 130 if it was interrupted,
        143 or 129 if another signal asked it to end.
    """
    with any_terminal(), stopped_by_signals():
        try:
            return _run(arguments)
        except KeyboardInterrupt as stopped:
            say("interrupted; what was finished is kept")
            return 128 + getattr(stopped, "number", signal.SIGINT)
        except MemoryError:
            say("there is too little memory; what was finished is kept")
        except (ArithmeticError, TrainingError) as error:
            say(error)
        except InputError as error:
            say(error)
            return 2
        except OSError as error:
            where = f" {os.fsdecode(error.filename)}" if error.filename else ""
            say(f"cannot read or write{where}: {error.strerror or error}")
            return 2
        except BaseException as error:
            if type(error) is RuntimeError and "allocate memory" in str(error):  # torch's
                say("there is too little memory; what was finished is kept")
            elif isinstance(error, Exception):
                raise
            else:  # of a guide, say, that calls sys.exit
                say(f"a model or a guide ended this with {type(error).__name__}: {error}")
        finally:
            quick_exit()
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    about = f"pyro-onebit {version('pyro-onebit')}"
    try:
        command, as_json = parse(_COMMANDS, arguments, prog="onebit", doc=_DOC, version=about)
    except SystemExit as shown:  # the help or the version
        return int(shown.code or 0)
    with nothing_else_printed() if as_json else nullcontext():
        outcome = command.run()
    write_result(json.dumps(outcome.content, allow_nan=False) if as_json else outcome.text)
    return outcome.code
