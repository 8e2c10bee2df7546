"""The `onebit` command."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from pyro_onebit import exact
from pyro_onebit.bounds import bound_table, eubo
from pyro_onebit.coding import Codec
from pyro_onebit.compare import compare, comparison_grid
from pyro_onebit.config import Config, Preset
from pyro_onebit.container import Report, pack, unpack
from pyro_onebit.data import InputError
from pyro_onebit.files import check_writable, finite, read_whole, write_whole
from pyro_onebit.inference_data import write_inference_data
from pyro_onebit.plots import save_comparison_figures, save_study_figures
from pyro_onebit.report import write_report
from pyro_onebit.runs import load_run, save_run
from pyro_onebit.study import missing, run_name, run_study
from pyro_onebit.studyfile import StudyGrid, claim, read_study
from pyro_onebit.tables import format_bounds, format_checks, format_comparison, format_table
from pyro_onebit.training import TrainingError, build, fit

__all__ = ["main"]


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
            _print_json({"rows": study.rows, "failures": study.failures, **places})
        else:
            print(format_table(study.rows))
            print(f"written to {self.out}: results.csv, runs/, figures/ ({', '.join(path.name for path in figures)})")
            print(f"to be read: {report}")
        return _report(study.failures)

    def _list(self, configs: list[Config]) -> int:
        names = [run_name(config) for config in missing(configs, self.out)]
        if self.json:
            _print_json({"missing": names, "out": str(self.out)})
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
            _print_json(run.metrics)
        else:
            _print_figures(run.metrics)
        return 0


@dataclass(frozen=True)
class EvaluateCommand:
    """Compute the exact figures of a run anew from its parameters, and how far q is from the posterior.

    Arguments:
        run_directory: A run's directory.
        json: Print one JSON object.
    """

    run_directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    json: bool = False

    def run(self) -> int:
        """Load, evaluate and print."""
        run = load_run(self.run_directory)
        figures = run.judge()
        truth = figures.truth
        checks = exact.posterior_checks(truth, exact.solve_joint(run.model, run.guide, run.data, truth))
        if self.json:
            threshold = {"learned": truth.crossing, "ideal": truth.truncation}
            _print_json({**run.metrics, "errors": figures.errors, "threshold": threshold, "posterior": checks})
        else:
            _print_figures(run.metrics, figures.errors)
            crossing = "none" if truth.crossing is None else f"{truth.crossing:.5f}"
            print(f"\nthe decoder's threshold: {crossing}; an ideal model's: {truth.truncation:.5f}")
            print(format_checks(checks))
        return 0


@dataclass(frozen=True)
class BoundsCommand:
    """Importance-weighted bounds of a run by sampling, beside their exact expectations.

    Arguments:
        run_directory: A run's directory.
        particles: Draws a bound, K; one row each.
        repeats: Independent bounds for each K.
        alpha: Order of the bound: 0 is IWAE, others are Rényi bounds, 1 the ELBO.
        seed: Seed of the draws.
        json: Print one JSON object.
    """

    run_directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    particles: tuple[int, ...] = (1, 10, 100, 1000)
    repeats: int = 100
    alpha: float = 0.0
    seed: int = 0
    json: bool = False

    def run(self) -> int:
        """Load, sample, integrate and print."""
        run = load_run(self.run_directory)
        programs = (run.model, run.guide, run.data)
        truth = exact.solve(*programs)
        joint = exact.solve_joint(*programs, truth)
        rows = bound_table(*programs, joint, self.particles, alpha=self.alpha, repeats=self.repeats, seed=self.seed)
        upper, upper_error = eubo(*programs, truth, seed=self.seed).average
        probs = truth.probs
        figures: dict[str, float | None] = {
            "elbo": float(probs @ (truth.log_evidence - joint.kl_forward)),
            "log_evidence": float(probs @ truth.log_evidence),
            "eubo": float(probs @ (truth.log_evidence + joint.kl_reverse)),
        }
        if self.json:
            estimate = {"estimate": finite(upper), "standard_error": finite(upper_error)}
            figures["eubo"] = finite(figures["eubo"])
            _print_json(
                {"alpha": self.alpha, "repeats": self.repeats, **figures, "eubo_sampled": estimate, "rows": rows}
            )
        else:
            print(format_bounds(rows))
            print(
                f"exact ELBO {figures['elbo']:.6f}   log evidence {figures['log_evidence']:.6f}   "
                f"EUBO {figures['eubo']:.6f} (sampled: {upper:.6f} ± {upper_error:.6f})"
            )
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
            _print_json(
                {"rows": comparison.rows, "failures": comparison.failures, "out": str(self.out), "figures": paths}
            )
        else:
            print(format_comparison(comparison.rows))
            names = ", ".join(path.name for path in figures)
            print(f"written to {self.out}: comparison.csv, runs/, figures/ ({names})")
        return _report(comparison.failures)


@dataclass(frozen=True)
class EncodeCommand:
    """Code a file bits-back with a run, each of its bits as one n-dimensional sample, into a container.

    Arguments:
        file: The file to encode; any will do.
        out: The container to write.
        run_directory: A run's directory.
        bins: Bins of the top latent, a power of two.
        points: Points of z1's grid, with two layers.
        seed: Seed of the dither and of the initial bits.
        naive: Draw latents from the bits as they are, without dither: they are then not the guide's.
        quiet: Show no progress bar.
        json: Print one JSON object.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    run_directory: Annotated[Path, tyro.conf.arg(name="run", metavar="DIR")]
    bins: int = 4096
    points: int = 512
    seed: int = 0
    naive: bool = False
    quiet: bool = False
    json: bool = False

    def run(self) -> int:
        """Read, encode, write and print."""
        content = read_whole(self.file)
        run = load_run(self.run_directory)
        check_writable(self.out.parent)
        settings: dict[str, Any] = {"bins": self.bins, "points": self.points, "seed": self.seed}
        codec = Codec(run.model, run.guide, run.data, dither=not self.naive, **settings)
        container, report = pack(codec, content, quiet=self.quiet)
        write_whole(self.out, container)
        _print_report(report, self.json)
        return 0


@dataclass(frozen=True)
class DecodeCommand:
    """Restore a file from the container that `onebit encode` wrote with the same run.

    Arguments:
        container: The container.
        file: The file to write.
        run_directory: The run's directory.
        quiet: Show no progress bar.
        json: Print one JSON object.
    """

    container: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    run_directory: Annotated[Path, tyro.conf.arg(name="run", metavar="DIR")]
    quiet: bool = False
    json: bool = False

    def run(self) -> int:
        """Read, decode, check, write and print."""
        container = read_whole(self.container)
        run = load_run(self.run_directory)
        check_writable(self.file.parent)
        try:
            content, report = unpack(run.model, run.guide, run.data, container, quiet=self.quiet)
        except InputError as error:
            raise InputError(f"cannot decode {self.container}: {error}") from None
        write_whole(self.file, content)
        _print_report(report, self.json)
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
            _print_json({"report": str(path)})
        else:
            print(path)
        return 0


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(report))
        return
    print(f"{report.samples} samples in a container of {report.container_bytes} bytes")
    if report.samples:
        print(
            f"bits a sample: net {report.net:.4f}, initial {report.initial:.4f}; predicted {report.predicted:.4f} "
            f"± {report.standard_error:.4f}; entropy of the file's bits {report.entropy:.4f}"
        )


def _report(failures: dict[str, str]) -> int:
    """Say what failed; the exit code."""
    for name, reason in failures.items():
        print(f"error: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, allow_nan=False))


def _print_figures(metrics: dict[str, Any], errors: dict[str, float] | None = None) -> None:
    for name, value in metrics.items():
        shown = f"{value:.8f}" if isinstance(value, float) else value
        print(f"{name:<18} {shown}" + (f"  ± {errors[name]:.0e}" if errors and name in errors else ""))


_COMMANDS = {
    "train": TrainCommand,
    "evaluate": EvaluateCommand,
    "bounds": BoundsCommand,
    "compare": CompareCommand,
    "encode": EncodeCommand,
    "decode": DecodeCommand,
    "report": ReportCommand,
}


def _commands(arguments: Sequence[str]) -> Any:
    """All commands; that of a study has what its file says for defaults."""
    files = [Path(after) for flag, after in itertools.pairwise(arguments) if flag == "--config"]
    files += [Path(argument.removeprefix("--config=")) for argument in arguments if argument.startswith("--config=")]
    default = StudyCommand(read_study(files[-1])) if arguments[:1] == ["study"] and files else StudyCommand()
    commands = [Annotated[StudyCommand, tyro.conf.subcommand("study", default=default)]]
    commands += [Annotated[command, tyro.conf.subcommand(name)] for name, command in _COMMANDS.items()]
    return Union[tuple(commands)]  # noqa: UP007 - a union of what is only known here


def _is_text(line: str) -> bool:
    return bool(line.strip("-"))


def _parse(arguments: Sequence[str] | None) -> Any:
    """The command, with tyro's boxed complaint folded into one line."""
    complaint = io.StringIO()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    commands = _commands(arguments)
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                commands,
                prog="onebit",
                description=__doc__,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as end:
        if not end.code:
            raise
        # A title, then the message, then help: in a box, or with dashed rules if there is no UTF-8.
        lines = [line.strip("│╭╮╰╯─ ") for line in complaint.getvalue().splitlines()[1:]]
        message = itertools.takewhile(_is_text, itertools.dropwhile(lambda line: not _is_text(line), lines))
        # Where a whole dataclass is refused, tyro names it by a path of its own making.
        raise InputError(re.sub(r"^Error parsing __\S+: ", "", " ".join(message))) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 if a computation failed, 2 for what the user got wrong."""
    try:
        return int(_parse(arguments).run())
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
