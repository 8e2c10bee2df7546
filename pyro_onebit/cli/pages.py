"""The commands that write a page: a report, and one to play with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.parser import Command, Outcome


@dataclass(frozen=True)
class ExploreCommand(Command):
    """Write a page to play with: one file for any browser, with a slider over n, families of guides, and q by hand.

    Arguments:
        out: The file to write.
        force: Replace a file that is not such a page.
        quiet: Show no progress bar.

    Examples:
        onebit explore --out play.html  # a minute
    """

    out: Path = Path("explore.html")
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Compute, write, and say where."""
        from pyro_onebit.reporting import write_explorer

        page = str(write_explorer(self.out, quiet=self.quiet, force=self.force))
        return Outcome({"page": page}, f"Open {page}")


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write the report of a study, a comparison or a run: report.html, one file that needs nothing else.

    Arguments:
        directory: The study's directory, or a run's.
        inference_data: Write each finished run's posterior.nc, too: ArviZ InferenceData with its log_evidence.
        force: Replace a report.html that is not this command's.

    Examples:
        onebit report results
    """

    directory: Path = field(metadata={"positional": True, "metavar": "DIR"})
    inference_data: bool = False
    force: bool = False

    def run(self) -> Outcome:
        """Read, write, and say where."""
        from pyro_onebit.reporting import write_report
        from pyro_onebit.studies import finished_runs, load_run, write_inference_data

        paths = [write_report(self.directory, force=self.force)]
        if self.inference_data:
            for run in finished_runs(self.directory):
                paths.append(run / "posterior.nc")
                write_inference_data(load_run(run), paths[-1])
        report, *posteriors = map(str, paths)
        return Outcome({"report": report, "posteriors": posteriors}, "\n".join([report, *posteriors]))
