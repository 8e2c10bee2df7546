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

    Examples:
        onebit evaluate run  # ten seconds
    """

    run_directory: Path = field(metadata={"positional": True, "metavar": "DIR"})

    def run(self) -> Outcome:
        """Load and evaluate."""
        from pyro_onebit import exact
        from pyro_onebit.data import words_of
        from pyro_onebit.reporting import format_checks
        from pyro_onebit.studies import load_run

        run = load_run(self.run_directory)
        figures = run.judge()
        truth = figures.truth
        checks = exact.posterior_checks(truth, exact.solve_joint(run.model, run.guide, run.data, truth))
        names, bits = run.data.names, run.data.bits
        ideal = truth.thresholds.tolist()
        threshold = {"learned": truth.crossing, "ideal": ideal[0] if bits == 1 else ideal}
        order = [names[c] for c in truth.order]
        information = [truth.information(bit) for bit in zip(*words_of(bits), strict=True)]
        crossing = "none" if truth.crossing is None else f"{truth.crossing:.5f}"
        notes = "".join(f"{name}: {note}\n" for name, note in figures.notes.items())
        text = (
            f"{format_figures(run.metrics, figures.errors)}\n{notes}\n"
            f"the decoder's threshold: {crossing}; an ideal model's: {' '.join(f'{cut:z.5f}' for cut in ideal)}\n"
            f"the codewords along {truth.latents[-1]}: {' '.join(order)}; what it says of each bit (nats): "
            f"{' '.join(f'{own:.5f}' for own in information)}\n{format_checks(checks)}"
        )
        found = {"errors": figures.errors, "notes": figures.notes, "threshold": threshold, "posterior": checks}
        found |= {"order": order, "bit_information": information}
        return Outcome({**run.metrics, **found}, text)
