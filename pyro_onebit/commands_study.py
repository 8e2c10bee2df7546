"""The commands that train: one run, a study, a comparison; and a study's report."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from pyro_onebit.compare import compare
from pyro_onebit.config import Config
from pyro_onebit.files import check_writable
from pyro_onebit.inference_data import write_inference_data
from pyro_onebit.plots import save_comparison_figures, save_study_figures
from pyro_onebit.printing import print_figures, print_json
from pyro_onebit.report import write_report
from pyro_onebit.runs import is_finished, load_run, run_name, train
from pyro_onebit.study import missing, run_study
from pyro_onebit.studyfile import StudyGrid, claim
from pyro_onebit.tables import format_comparison, format_table
from pyro_onebit.training import TrainingError

__all__ = ["CompareCommand", "GridCommand", "ReportCommand", "StudyCommand", "TrainCommand"]


@dataclass(frozen=True)
class GridCommand:
    """What the commands that train a grid have in common.

    Arguments:
        grid: What to train.
        config: A TOML file with the grid, such as the study.toml of another study; flags take precedence over it.
        jobs: Processes, one thread each.
        cluster: Address of a Dask scheduler whose workers do the training and see the same files.
        out: Directory to write to.
        dry_run: Only list the runs that are missing.
        quiet: Show no progress bar.
        json: Print one JSON object instead of the table.
    """

    grid: tyro.conf.OmitArgPrefixes[StudyGrid] = field(default_factory=StudyGrid)
    config: Path | None = None
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    cluster: str | None = None
    out: Path = Path("results")
    dry_run: bool = False
    quiet: bool = False
    json: bool = False

    def run(self) -> int:
        """Train, write and print; 1 if a run failed, 130 if it was interrupted."""
        configs = self.grid.configs()
        if self.dry_run:
            return self._list(configs)
        check_writable(self.out)
        claim(self.out, self.grid)
        try:
            failures = self._carry_out(configs)
        except KeyboardInterrupt:
            finished = len(configs) - len(missing(configs, self.out))
            print(
                f"interrupted: {finished} of {len(configs)} runs are finished; the same command goes on from there",
                file=sys.stderr,
            )
            return 130
        for name, reason in failures.items():
            print(f"error: {name} failed: {reason}", file=sys.stderr)
        return 1 if failures else 0

    def _carry_out(self, configs: list[Config]) -> dict[str, str]:
        """Train, write and print; the failures' names and reasons."""
        raise NotImplementedError

    def _list(self, configs: list[Config]) -> int:
        names = [run_name(config) for config in missing(configs, self.out)]
        if self.json:
            print_json({"missing": names, "out": str(self.out)})
        else:
            print("\n".join([*names, f"{len(names)} of {len(configs)} runs are missing in {self.out}"]))
        return 0

    def _print(
        self, rows: list[dict[str, Any]], failures: dict[str, str], figures: list[Path], table: str, name: str
    ) -> None:
        """Write the report; print the table, and where everything is."""
        report = write_report(self.out)
        if self.json:
            places = {"out": str(self.out), "figures": [str(path) for path in figures], "report": str(report)}
            print_json({"rows": rows, "failures": failures, **places})
        else:
            print(table)
            print(f"written to {self.out}: {name}, runs/, figures/ ({', '.join(path.name for path in figures)})")
            print(f"to be read: {report}")


@dataclass(frozen=True)
class StudyCommand(GridCommand):
    """Train a grid of runs; write results.csv, runs/, figures/ and report.html, and print the table.

    What is there already is not trained again: the same command goes on where an earlier one was stopped.
    """

    def _carry_out(self, configs: list[Config]) -> dict[str, str]:
        study = run_study(configs, self.out, self.jobs, quiet=self.quiet, cluster=self.cluster)
        solved = [(load_run(self.out / "runs" / name), truth) for name, truth in study.truths.items()]
        figures = save_study_figures(study.rows, solved, self.out / "figures")
        self._print(study.rows, study.failures, figures, format_table(study.rows), "results.csv")
        return study.failures


#: Every guide, where a latent is worth its cost.
_COMPARED = StudyGrid(
    ndims=(5, 100), guides=("prior", "gaussian", "mixture", "flow", "truncated", "two_layer", "oracle")
)


@dataclass(frozen=True)
class CompareCommand(GridCommand):
    """Train guides and objectives side by side; write comparison.csv, runs/, figures/ and report.html; print the table.

    What is there already is not trained again: the same command goes on where an earlier one was stopped.
    """

    grid: tyro.conf.OmitArgPrefixes[StudyGrid] = field(default_factory=lambda: _COMPARED)
    out: Path = Path("results/compare")

    def _carry_out(self, configs: list[Config]) -> dict[str, str]:
        comparison = compare(configs, self.out, self.jobs, quiet=self.quiet, cluster=self.cluster)
        figures = save_comparison_figures(comparison, self.out / "figures")
        table = format_comparison(comparison.rows)
        self._print(comparison.rows, comparison.failures, figures, table, "comparison.csv")
        return comparison.failures


@dataclass(frozen=True)
class TrainCommand:
    """Train one run and write it: config.json, checkpoint.pt, history.csv, metrics.json, posterior.nc.

    If the directory has this run already it is not trained again, and one that was stopped goes on.

    Arguments:
        out: Directory to write to.
        config: What to train.
        quiet: Show no progress bar.
        json: Print one JSON object.
    """

    out: Path
    config: tyro.conf.OmitArgPrefixes[Config]
    quiet: bool = False
    json: bool = False

    def run(self) -> int:
        """Train, write and print; 1 if training met a value that is not finite."""
        there = is_finished(self.out)
        try:
            run = train(self.config, self.out, quiet=self.quiet)
        except TrainingError as error:
            print(f"error: {error}, in {self.out}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from the state that was kept last", file=sys.stderr)
            return 130
        if there:
            print(f"{self.out} had this run already; it was not trained again", file=sys.stderr)
        posterior = self.out / "posterior.nc"
        if not posterior.exists():
            write_inference_data(run, posterior)
        if self.json:
            print_json(run.metrics)
        else:
            print_figures(run.metrics)
        return 0


@dataclass(frozen=True)
class ReportCommand:
    """Write the report of a study or a comparison: report.html, one file that needs nothing else.

    Arguments:
        directory: The study's directory.
        json: Print one JSON object.
    """

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    json: bool = False

    def run(self) -> int:
        """Read, write, and print where."""
        path = write_report(self.directory)
        if self.json:
            print_json({"report": str(path)})
        else:
            print(path)
        return 0
