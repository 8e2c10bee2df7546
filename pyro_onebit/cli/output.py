"""What commands print, and where it goes: to whatever is at the other end, or to none."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pyro_onebit.errors import WriteError


def format_figures(metrics: Mapping[str, Any], errors: Mapping[str, float] | None = None) -> str:
    """A line for each figure, with its numerical error where it is known."""
    from pyro_onebit.reporting import format_value
    from pyro_onebit.studies import Column

    lines = []
    for name, value in metrics.items():
        shown = format_value(value, Column(name, format=".8f"))
        lines.append(f"{name:<18} {shown}" + (f"  ± {errors[name]:.0e}" if errors and name in errors else ""))
    return "\n".join(lines)


#: An error is a line that people read.
_LONGEST = 300


def say(message: object) -> None:
    """One line about what went wrong, as `tell` tells it."""
    line = " ".join(str(message).split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST * 2 // 3]} … {line[-_LONGEST // 3 :]}"
    tell(f"error: {line}")


def tell(line: str) -> None:
    """One line on standard error; where nobody can be told, nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def write_result(text: str) -> None:
    """What a command has to say, on standard output; a reader who has seen enough may be gone.

    Raises:
        WriteError: If it cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop(sys.stdout)
    except OSError as error:
        _drop(sys.stdout)
        raise WriteError(f"cannot write standard output: {error.strerror}; what was to be done is done") from None


def _drop(stream: Any) -> None:
    """Let what a stream still holds go nowhere: else Python tries to write it once more at its end, and fails."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def any_terminal() -> Iterator[None]:
    """Within, all can be printed: a character that a terminal lacks is replaced, a closed stream leads nowhere."""
    # A file that is opened in place of a closed stream would get what is printed there.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    kept = sys.stdout, sys.stderr
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                _drop(stream)
        sys.stdout, sys.stderr = kept


@contextlib.contextmanager
def nothing_else_printed() -> Iterator[None]:
    """Within, whatever a guide prints goes to standard error, in other processes too: standard output is for JSON."""
    try:
        out = sys.stdout.fileno()
    except (OSError, io.UnsupportedOperation):  # a stream in memory
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(out)
    os.dup2(sys.stderr.fileno(), out)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, out)
        os.close(kept)
