"""The commands that use a trained run: to judge it, to bound its evidence, to code files with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pyro_onebit import exact
from pyro_onebit.bounds import bound_table, eubo
from pyro_onebit.coding import Codec
from pyro_onebit.container import Report, pack, unpack
from pyro_onebit.data import InputError
from pyro_onebit.files import check_writable, finite, read_whole, write_whole
from pyro_onebit.printing import print_figures, print_json
from pyro_onebit.runs import load_run
from pyro_onebit.tables import format_bounds, format_checks

__all__ = ["BoundsCommand", "DecodeCommand", "EncodeCommand", "EvaluateCommand"]


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
            print_json({**run.metrics, "errors": figures.errors, "threshold": threshold, "posterior": checks})
        else:
            print_figures(run.metrics, figures.errors)
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
            print_json(
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


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    print(f"{report.samples} samples in a container of {report.container_bytes} bytes")
    if report.samples:
        print(
            f"bits a sample: net {report.net:.4f}, initial {report.initial:.4f}; predicted {report.predicted:.4f} "
            f"± {report.standard_error:.4f}; entropy of the file's bits {report.entropy:.4f}"
        )
