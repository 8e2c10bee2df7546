"""The command that bounds a run's evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.parser import Command, Outcome


@dataclass(frozen=True)
class BoundsCommand(Command):
    """Importance-weighted bounds of a run by sampling, beside their exact expectations.

    Arguments:
        run_directory: A run's directory.
        particles: Numbers of draws, K; a bound for each.
        repeats: Independent bounds for each K.
        alpha: Order of the bound: 0 is IWAE, others are Rényi bounds, 1 the ELBO.
        seed: Seed of the draws.

    Examples:
        onebit bounds run  # ten seconds
    """

    run_directory: Path = field(metadata={"positional": True, "metavar": "DIR"})
    particles: tuple[int, ...] = (1, 10, 100, 1000)
    repeats: int = 100
    alpha: float = 0.0
    seed: int = 0

    def run(self) -> Outcome:
        """Load, sample and integrate."""
        from pyro_onebit import exact
        from pyro_onebit.bounds import bound_table, eubo
        from pyro_onebit.exact import finite
        from pyro_onebit.reporting import format_bounds
        from pyro_onebit.studies import load_run

        run = load_run(self.run_directory)
        programs = (run.model, run.guide, run.data)
        truth = exact.solve(*programs)
        joint = exact.solve_joint(*programs, truth)
        rows = bound_table(*programs, joint, self.particles, alpha=self.alpha, repeats=self.repeats, seed=self.seed)
        upper, upper_error = eubo(*programs, truth, seed=self.seed).average
        probs = truth.probs
        elbo = float(probs @ (truth.log_evidence - joint.kl_forward))
        log_evidence = float(probs @ truth.log_evidence)
        exact_upper = float(probs @ (truth.log_evidence + joint.kl_reverse))
        content = {
            "alpha": self.alpha,
            "repeats": self.repeats,
            "elbo": elbo,
            "log_evidence": log_evidence,
            "eubo": finite(exact_upper),
            "eubo_sampled": {"estimate": finite(upper), "standard_error": finite(upper_error)},
            "rows": rows,
        }
        text = (
            f"{format_bounds(rows)}\nexact ELBO {elbo:.6f}   log evidence {log_evidence:.6f}   "
            f"EUBO {exact_upper:.6f} (sampled: {upper:.6f} ± {upper_error:.6f})"
        )
        return Outcome(content, text)
