"""The commands that train: one run, a study, a comparison; and a study's report."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pyro_onebit.compare import compare, comparison_grid
from pyro_onebit.config import Config, Preset
from pyro_onebit.files import check_writable
from pyro_onebit.inference_data import write_inference_data
from pyro_onebit.plots import save_comparison_figures, save_study_figures
from pyro_onebit.printing import print_figures, print_json
from pyro_onebit.report import write_report
from pyro_onebit.runs import load_run, save_run
from pyro_onebit.study import missing, run_name, run_study
from pyro_onebit.studyfile import StudyGrid, claim
from pyro_onebit.tables import format_comparison, format_table
from pyro_onebit.training import TrainingError, build, fit

__all__ = ["CompareCommand", "ReportCommand", "StudyCommand", "TrainCommand"]


@dataclass(frozen=True)
class StudyCommand:
    """Train a grid of runs; write results.csv, runs/ and figures/, and print the table.

    What is there already is not trained again: the same command goes on where an earlier one was stopped.

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
        """Train, write and print; 1 if a run failed."""
        configs = self.grid.configs()
        if self.dry_run:
            return self._list(configs)
        check_writable(self.out)
        claim(self.out, self.grid)
        try:
            study = run_study(configs, self.out, self.jobs, quiet=self.quiet, cluster=self.cluster)
        except KeyboardInterrupt:
            finished = len(configs) - len(missing(configs, self.out))
            print(
                f"interrupted: {finished} of {len(configs)} runs are finished; the same command goes on from there",
                file=sys.stderr,
            )
            return 130
        solved = [(load_run(self.out / "runs" / name), truth) for name, truth in study.truths.items()]
        figures = save_study_figures(study.rows, solved, self.out / "figures")
        report = write_report(self.out)
        if self.json:
            paths = [str(path) for path in figures]
            places = {"out": str(self.out), "figures": paths, "report": str(report)}
            print_json({"rows": study.rows, "failures": study.failures, **places})
        else:
            print(format_table(study.rows))
            print(f"written to {self.out}: results.csv, runs/, figures/ ({', '.join(path.name for path in figures)})")
            print(f"to be read: {report}")
        return _report(study.failures)

    def _list(self, configs: list[Config]) -> int:
        names = [run_name(config) for config in missing(configs, self.out)]
        if self.json:
            print_json({"missing": names, "out": str(self.out)})
        else:
            print("\n".join([*names, f"{len(names)} of {len(configs)} runs are missing in {self.out}"]))
        return 0


@dataclass(frozen=True)
class TrainCommand:
    """Train one run and write it: config.json, checkpoint.pt, history.csv, metrics.json, posterior.nc.

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
        model, guide, data = build(self.config)
        check_writable(self.out)
        try:
            run = fit(model, guide, data, self.config, quiet=self.quiet)
        except TrainingError as error:
            save_run(error.run, self.out)
            print(f"error: {error}, in {self.out}", file=sys.stderr)
            return 1
        save_run(run, self.out)
        write_inference_data(run, self.out / "posterior.nc")
        if self.json:
            print_json(run.metrics)
        else:
            print_figures(run.metrics)
        return 0


@dataclass(frozen=True)
class CompareCommand:
    """Train guides and objectives side by side; write comparison.csv, runs/ and figures/, and print the table.

    Runs that are already in the directory are not trained again.

    Arguments:
        guides: Registered guides; each goes with the model of its number of layers.
        objectives: Training objectives; none: each recipe's own.
        ndims: Dimensions of x.
        seeds: Seeds.
        prob: Probability of codeword 1.
        preset: How to train: the default recipe, the same with more steps, or the original's.
        steps: Steps, if not the recipe's.
        particles: Samples of the latents a row, if not the recipe's.
        jobs: Processes, one thread each.
        out: Directory to write to.
        quiet: Show no progress bar.
        json: Print one JSON object instead of the table.
    """

    guides: tuple[str, ...] = ("prior", "gaussian", "mixture", "flow", "truncated", "two_layer", "oracle")
    objectives: tuple[str, ...] = ()
    ndims: tuple[int, ...] = (5, 100)
    seeds: tuple[int, ...] = (0,)
    prob: float = 0.5
    preset: Preset = "default"
    steps: int | None = None
    particles: int | None = None
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    out: Path = Path("results/compare")
    quiet: bool = False
    json: bool = False

    def run(self) -> int:
        """Train, compare, write and print; 1 if a run failed."""
        common = {"prob": self.prob, "preset": self.preset, "steps": self.steps, "particles": self.particles}
        configs = list(comparison_grid(self.guides, self.objectives or (None,), self.ndims, self.seeds, **common))
        comparison = compare(configs, self.out, self.jobs, quiet=self.quiet)
        figures = save_comparison_figures(comparison, self.out / "figures")
        if self.json:
            paths = [str(path) for path in figures]
            print_json(
                {"rows": comparison.rows, "failures": comparison.failures, "out": str(self.out), "figures": paths}
            )
        else:
            print(format_comparison(comparison.rows))
            names = ", ".join(path.name for path in figures)
            print(f"written to {self.out}: comparison.csv, runs/, figures/ ({names})")
        return _report(comparison.failures)


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


def _report(failures: dict[str, str]) -> int:
    """Say what failed; the exit code."""
    for name, reason in failures.items():
        print(f"error: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0
