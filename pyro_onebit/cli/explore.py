"""The command that writes a page to play with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyro_onebit.cli.parser import Command, Outcome


@dataclass(frozen=True)
class ExploreCommand(Command):
    """Write a page to play with: one file for any browser, with a slider over n, families of guides, and q by hand.

    Arguments:
        out: The file to write.
        force: Replace a file that is not such a page.
        quiet: Show no progress bar.
    """

    out: Path = Path("explore.html")
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Compute, write, and say where."""
        from pyro_onebit.reporting import write_explorer

        page = str(write_explorer(self.out, quiet=self.quiet, force=self.force))
        return Outcome({"page": page}, f"Open {page}")
