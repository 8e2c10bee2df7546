"""The command that judges a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.output import format_figures
from pyro_onebit.cli.parser import Command, Outcome


@dataclass(frozen=True)
class EvaluateCommand(Command):
    """Recompute the exact figures of a run from its parameters, and how far q is from the posterior.

    Arguments:
        run_directory: A run's directory.
    """

    run_directory: Path = field(metadata={"positional": True, "metavar": "DIR"})

    def run(self) -> Outcome:
        """Load and evaluate."""
        from pyro_onebit import exact
        from pyro_onebit.reporting import format_checks
        from pyro_onebit.studies import load_run

        run = load_run(self.run_directory)
        figures = run.judge()
        truth = figures.truth
        checks = exact.posterior_checks(truth, exact.solve_joint(run.model, run.guide, run.data, truth))
        ideal = float(truth.thresholds)
        threshold = {"learned": truth.crossing, "ideal": ideal}
        crossing = "none" if truth.crossing is None else f"{truth.crossing:.5f}"
        notes = "".join(f"{name}: {note}\n" for name, note in figures.notes.items())
        text = (
            f"{format_figures(run.metrics, figures.errors)}\n{notes}\n"
            f"the decoder's threshold: {crossing}; an ideal model's: {ideal:z.5f}\n{format_checks(checks)}"
        )
        found = {"errors": figures.errors, "notes": figures.notes, "threshold": threshold, "posterior": checks}
        return Outcome({**run.metrics, **found}, text)
