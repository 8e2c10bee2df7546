"""The commands that train a grid: a study, a comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pyro_onebit.cli.output import say, tell
from pyro_onebit.cli.parser import Command, Outcome
from pyro_onebit.errors import InputError
from pyro_onebit.registry import import_source
from pyro_onebit.settings import GridSettings
from pyro_onebit.system import imported_ahead, uncollected


@dataclass(frozen=True)
class GridCommand(Command):
    """What the commands that train a grid have in common.

    Arguments:
        grid: What to train.
        config: A TOML file with the grid, such as the study.toml of another study; flags take precedence over it.
        jobs: Processes, one thread each.
        cluster: Address of a Dask scheduler whose workers do the training and see the same files.
        out: Directory to write to.
        timeout: Seconds after which a run is given up and counts as failed; its state is kept.
        force: Replace files in the directory that are not this command's.
        dry_run: Only list the runs that are missing.
        quiet: Show no progress bar.
    """

    #: What its table is.
    _kind: ClassVar[Literal["results", "comparison"]]

    grid: GridSettings = field(default_factory=GridSettings)
    config: Path | None = None
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    cluster: str | None = None
    out: Path = Path("results")
    timeout: float | None = None
    force: bool = False
    dry_run: bool = False
    quiet: bool = False

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file's grid, if there is one."""
        if "config" not in given:
            return {}
        from pyro_onebit.studies import read_study

        grid = read_study(given["config"])
        for source in grid.imports:
            import_source(source)
        grid.configs()  # says what is out of range
        return {"grid": grid}

    def run(self) -> Outcome:
        """Train, write and say where; 1 if a run failed."""
        alone = self.jobs == 1 and self.timeout is None
        with nullcontext() if self.dry_run or self.cluster or alone else imported_ahead("pyro_onebit.studies"):
            return self._run()

    def _run(self) -> Outcome:
        with uncollected():
            from pyro_onebit import studies
            from pyro_onebit.plots import comparison_drawings, save_drawings, study_drawings
            from pyro_onebit.reporting import claim_report, findings, format_runs, write_report

        grid = studies.StudyGrid(**vars(self.grid))
        configs = grid.configs()
        if self.dry_run:
            names = [studies.run_name(config) for config in studies.missing(configs, self.out)]
            text = "\n".join([*names, f"{len(names)} of {len(configs)} runs are missing in {self.out}"])
            return Outcome({"missing": names, "out": str(self.out)}, text)
        studies.claim_tables(self.out, self._kind, force=self.force)
        claim_report(self.out, force=self.force)
        for config in configs:
            studies.claim_run(studies.run_path(self.out, config), force=self.force)
        studies.acquire(self.out, grid)
        train, drawings = (
            (studies.run_study, study_drawings) if self._kind == "results" else (studies.compare, comparison_drawings)
        )
        settings: dict[str, Any] = {"quiet": self.quiet, "timeout": self.timeout, "cluster": self.cluster}
        try:
            study = train(configs, self.out, self.jobs, **settings)
        except KeyboardInterrupt:
            finished = len(configs) - len(studies.missing(configs, self.out))
            tell(f"interrupted: {finished} of {len(configs)} runs are finished; the same command resumes the others")
            raise
        figures, missed = save_drawings(drawings(study), self.out / "figures", force=self.force)
        try:
            report = str(write_report(self.out, force=self.force))
        except Exception as error:  # after the work, its result comes whatever is the matter with its page
            report, missed["report.html"] = "", error
        for name, why in missed.items():
            say(f"{name} is missing: {why or type(why).__name__}")
        for name, reason in study.failures.items():
            say(f"{name} failed: {reason}")
        places = {"out": str(self.out), "figures": [str(path) for path in figures], "report": report or None}
        found = findings(study.table)
        content = {"rows": studies.records(study.table), "findings": found, "failures": study.failures, **places}
        drawn = ", ".join(path.name for path in figures)
        text = "\n".join(
            [
                format_runs(study.table, self._kind),
                f"written to {self.out}: {self._kind}.csv, runs/, figures/ ({drawn})",
                *([f"Open {report}"] if report else []),
                *found,
            ]
        )
        not_written = any(isinstance(why, InputError) for why in missed.values())
        return Outcome(content, text, code=2 if not_written else 1 if study.failures or missed else 0)


@dataclass(frozen=True)
class StudyCommand(GridCommand):
    """Train a grid of runs; write results.csv, runs/, figures/ and report.html, and print the table.

    Finished runs are not trained again: the same command resumes an earlier one that was stopped.

    Examples:
        onebit study  # a minute on two cores
        onebit study --ndims 2 100 --seeds 0 1 2 --out many  # a minute
        onebit study --ndims 5 --guides gaussian flow --dry-run
    """

    _kind = "results"


@dataclass(frozen=True)
class DemoCommand(Command):
    """Train one layer and two at n = 1, 2 and 100, in less than a minute; tell what came of it, and draw it.

    Arguments:
        out: Directory to write to, as `onebit study` does.
        jobs: Processes, one thread each.
        force: Replace files in the directory that are not this command's.
        quiet: Show no progress bar.

    Examples:
        onebit demo  # half a minute on two cores
    """

    out: Path = Path("results/demo")
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Run such a study, and keep its findings."""
        grid = GridSettings(ndims=(1, 2, 100))
        study = StudyCommand(grid, out=self.out, jobs=self.jobs, force=self.force, quiet=self.quiet).run()
        told = [*study.content["findings"], f"Look at {self.out / 'figures' / 'information.png'}"]
        return Outcome(study.content, "\n".join(told), study.code)


#: Every guide, where a latent is worth its cost.
_COMPARED = GridSettings(
    ndims=(5, 100), guides=("prior", "gaussian", "mixture", "flow", "truncated", "two_layer", "oracle")
)


@dataclass(frozen=True)
class CompareCommand(GridCommand):
    """Train guides and objectives side by side; write comparison.csv, runs/, figures/ and report.html; print the table.

    Finished runs are not trained again: the same command resumes an earlier one that was stopped.

    Examples:
        onebit compare  # five minutes
        onebit compare --ndims 5 --guides gaussian flow --out results/two
    """

    grid: GridSettings = field(default_factory=lambda: _COMPARED)
    out: Path = Path("results/compare")

    _kind = "comparison"
