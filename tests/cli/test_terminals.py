"""The command among other processes: terminals that lack much, and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyro_onebit.cli import main

PYTHON = f'"{sys.executable}" -m pyro_onebit'


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminals") / "run"
    assert main(["train", "--ndims", "2", "--steps", "3", "--quiet", "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("{} evaluate run | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{} evaluate run > /dev/full", 2, "error: cannot write standard output: No space left on device; "),
        ("MPLBACKEND=module://none.at_all PYTHONIOENCODING=ascii {} evaluate run >&-", 0, ""),
        ("{} nonsense 2>&-", 2, ""),
    ],
)
def test_a_terminal_that_lacks_something(line: str, code: int, said: str, run_directory: Path) -> None:
    ended = subprocess.run(
        ["bash", "-c", line.format(PYTHON)], cwd=run_directory.parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == bool(said)


def test_a_name_that_is_too_long_is_one_short_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--out", "a" * 300]) == 2
    error = capsys.readouterr().err
    assert "File name too long" in error
    assert error.count("\n") == 1
    assert len(error) < 330


def test_sigterm_ends_a_study_and_its_processes(tmp_path: Path) -> None:
    grid = ["--layers", "1", "--ndims", "2", "--seeds", "0", "1", "--steps", "100000", "--jobs", "2"]
    command = [sys.executable, "-m", "pyro_onebit", "study", *grid, "--quiet", "--out", str(tmp_path)]
    study = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(tmp_path.glob("runs/*/progress.safetensors"))) < 2:
        time.sleep(0.05)
        assert study.poll() is None
    os.kill(study.pid, signal.SIGTERM)
    # The pipes end only once no process holds them.
    _, error = study.communicate(timeout=60)
    assert study.returncode == 128 + signal.SIGTERM
    assert error.startswith("interrupted: 0 of 2 runs are finished")
    assert (tmp_path / "results.csv").exists()
