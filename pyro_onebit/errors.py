"""Every error that a caller may want to catch."""

from __future__ import annotations

from typing import Any

__all__ = ["DamagedError", "InputError", "NotCompilableError", "ProgramError", "TrainingError", "WriteError"]


class InputError(ValueError):
    """What the user gave is wrong; the message says what, and what would be right, in one line."""


class WriteError(InputError):
    """A file cannot be written: no space, no permission; what was there before is kept."""


class DamagedError(InputError):
    """What is decoded is not what this codec encoded."""


class ProgramError(InputError):
    """A model or a guide that cannot be judged, or two that do not go together."""


class NotCompilableError(InputError):
    """A model or guide that only runs as it is, in Python."""


class TrainingError(RuntimeError):
    """Training or judging met a value that is not finite.

    Arguments:
        message: What happened.
        run: The `Run` with the last parameters before it.
    """

    def __init__(self, message: str, run: Any) -> None:
        super().__init__(message)
        self.run = run
