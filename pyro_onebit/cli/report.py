"""The command that writes a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.parser import Command, Outcome
from pyro_onebit.reporting import write_report


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write the report of a study or a comparison: report.html, one file that needs nothing else.

    Arguments:
        directory: The study's directory.
        force: Replace a report.html that is not this command's.
    """

    directory: Path = field(metadata={"positional": True, "metavar": "DIR"})
    force: bool = False

    def run(self) -> Outcome:
        """Read, write, and say where."""
        path = write_report(self.directory, force=self.force)
        return Outcome({"report": str(path)}, str(path))
