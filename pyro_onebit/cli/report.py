"""The command that writes a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.parser import Command, Outcome


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write the report of a study, a comparison or a run: report.html, one file that needs nothing else.

    Arguments:
        directory: The study's directory, or a run's.
        inference_data: Write each finished run's posterior.nc, too: ArviZ InferenceData with its log_evidence.
        force: Replace a report.html that is not this command's.
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
