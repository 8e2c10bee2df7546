"""The command that judges a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit import exact
from pyro_onebit.cli.output import format_figures
from pyro_onebit.cli.parser import Command, Outcome
from pyro_onebit.reporting import format_checks
from pyro_onebit.studies import load_run


@dataclass(frozen=True)
class EvaluateCommand(Command):
    """Recompute the exact figures of a run from its parameters, and how far q is from the posterior.

    Arguments:
        run_directory: A run's directory.
    """

    run_directory: Path = field(metadata={"positional": True, "metavar": "DIR"})

    def run(self) -> Outcome:
        """Load and evaluate."""
        run = load_run(self.run_directory)
        figures = run.judge()
        truth = figures.truth
        checks = exact.posterior_checks(truth, exact.solve_joint(run.model, run.guide, run.data, truth))
        threshold = {"learned": truth.crossing, "ideal": truth.truncation}
        crossing = "none" if truth.crossing is None else f"{truth.crossing:.5f}"
        text = (
            f"{format_figures(run.metrics, figures.errors)}\n\n"
            f"the decoder's threshold: {crossing}; an ideal model's: {truth.truncation:.5f}\n{format_checks(checks)}"
        )
        return Outcome({**run.metrics, "errors": figures.errors, "threshold": threshold, "posterior": checks}, text)
