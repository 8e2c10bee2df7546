"""The command that trains one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_onebit.cli.output import format_figures, tell
from pyro_onebit.cli.parser import Command, Outcome
from pyro_onebit.settings import RunSettings


@dataclass(frozen=True)
class TrainCommand(Command):
    """Train one run and write it: config.json, parameters.safetensors, history.csv, metrics.json, posterior.nc.

    A finished run is not trained again, and one that was stopped is resumed.

    Arguments:
        out: Directory to write to.
        config: What to train.
        force: Replace files in the directory that are not a run's.
        quiet: Show no progress bar.

    Examples:
        onebit train --ndims 100 --layers 2 --out run  # ten seconds
        onebit --import my_guides.py train --guide mine --out run
    """

    out: Path
    config: RunSettings = field(default_factory=RunSettings)
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Train and write."""
        from pyro_onebit.studies import claim_run, is_finished, train, write_inference_data
        from pyro_onebit.training import Config

        config = Config(**vars(self.config))
        claim_run(self.out, force=self.force)
        finished = is_finished(self.out)
        try:
            run = train(config, self.out, quiet=self.quiet)
        except KeyboardInterrupt:
            tell("interrupted: the same command resumes from the state that was kept last")
            raise
        if finished:
            tell(f"{self.out} had this run already; it was not trained again")
        posterior = self.out / "posterior.nc"
        if not posterior.exists():
            write_inference_data(run, posterior)
        return Outcome(run.metrics, format_figures(run.metrics))
