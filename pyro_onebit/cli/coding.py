"""The commands that code files with a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_onebit.cli.parser import Command, Outcome
from pyro_onebit.errors import InputError
from pyro_onebit.files import check_writable, claim, read_whole, refuse_link, write_whole

if TYPE_CHECKING:
    from pyro_onebit.coding import Report

_RUN: dict[str, Any] = {"flag": "--run", "metavar": "DIR"}


@dataclass(frozen=True)
class EncodeCommand(Command):
    """Code a file bits-back with a run, K of its bits as one n-dimensional sample of 2^K codewords, into a container.

    Arguments:
        file: The file to encode; any will do.
        out: The container to write.
        run_directory: A run's directory.
        bins: Bins of the top latent, a power of two.
        points: Points of z1's grid, with two layers; 1024 for each bit of a sample if not given.
        seed: Seed of the dither and of the initial bits.
        naive: Draw latents from the bits as they are, without dither: they are then not the guide's.
        force: Replace a file that is no container.
        quiet: Show no progress bar.

    Examples:
        onebit encode letter.txt letter.onebit --run run  # ten seconds for 1 kB
    """

    file: Path = field(metadata={"positional": True, "metavar": "FILE"})
    out: Path = field(metadata={"positional": True, "metavar": "OUT"})
    run_directory: Path = field(metadata=_RUN)
    bins: int = 4096
    points: int | None = None
    seed: int = 0
    naive: bool = False
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Read, encode and write."""
        from pyro_onebit.coding import BYTES_TO_ENCODE, MAGIC, Codec, pack
        from pyro_onebit.studies import load_run

        _check_places(self.file, self.out)
        claim(self.out, b"" if self.force else MAGIC)
        content = read_whole(self.file, copies=BYTES_TO_ENCODE)
        run = load_run(self.run_directory)
        settings: dict[str, Any] = {"bins": self.bins, "points": self.points, "seed": self.seed}
        codec = Codec(run.model, run.guide, run.data, dither=not self.naive, **settings)
        container, report = pack(codec, content, quiet=self.quiet)
        write_whole(self.out, container, MAGIC, force=self.force)
        return _outcome(report, f"{self.file}, {len(content)} bytes, is in {self.out}")


@dataclass(frozen=True)
class DecodeCommand(Command):
    """Restore a file from the container that `onebit encode` wrote with the same run.

    Arguments:
        container: The container.
        file: The file to write.
        run_directory: The run's directory.
        force: Replace a file.
        quiet: Show no progress bar.

    Examples:
        onebit decode letter.onebit letter.txt --run run
    """

    container: Path = field(metadata={"positional": True, "metavar": "OUT"})
    file: Path = field(metadata={"positional": True, "metavar": "FILE"})
    run_directory: Path = field(metadata=_RUN)
    force: bool = False
    quiet: bool = False

    def run(self) -> Outcome:
        """Read, decode, check and write."""
        from pyro_onebit.coding import MAGIC, unpack
        from pyro_onebit.studies import load_run

        _check_places(self.container, self.file)
        claim(self.file, b"" if self.force else None)
        container = read_whole(self.container, magic=MAGIC)
        run = load_run(self.run_directory)
        try:
            content, report = unpack(run.model, run.guide, run.data, container, quiet=self.quiet)
        except InputError as error:
            raise InputError(f"cannot decode {self.container}: {error}") from None
        write_whole(self.file, content, force=self.force)
        return _outcome(report, f"{self.file} is restored: {len(content)} bytes, and their checksum fits")


def _check_places(source: Path, target: Path) -> None:
    """Refuse to write where it is read from, or where nothing can be written."""
    check_writable(target.parent)
    refuse_link(target)
    if source.exists() and target.exists() and source.samefile(target):
        raise InputError(f"{target} is the file that is read; choose another name for what is written")


def _outcome(report: Report, done: str) -> Outcome:
    text = f"{done}\n{report.samples} samples in a container of {report.container_bytes} bytes"
    if report.samples:
        text += (
            f"\nbits per sample: net {report.net:.4f}, initial {report.initial:.4f}; predicted {report.predicted:.4f} "
            f"± {report.standard_error:.4f}; entropy of the samples {report.entropy:.4f}"
            f"\nbits per bit of the file: {report.per_bit:.4f}"
        )
    return Outcome(asdict(report), text)
