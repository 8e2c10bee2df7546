"""Every script in analysis/ runs, small, from its command line."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import SEED

from pyro_onebit import Config, build, fit, save_run

ANALYSIS = Path(__file__).parents[1] / "analysis"
QUICK = ("--ndims", "3", "--steps", "20", "--jobs", "1")
#: Arguments that make a script quick; a script without an entry fails the test below.
SMALL = {
    "exact_posterior.py": QUICK,
    "iwae_bounds.py": [*QUICK, "--particles", "1", "40", "--draws", "200"],
    "negative_kl1.py": QUICK,
    "when_is_z_used.py": [*QUICK, "--followed", "2"],
    "calibration.py": [*QUICK, "--simulations", "50"],
    "custom_guide.py": QUICK,
    "compare_guides.py": [*QUICK, "--guides", "gaussian", "truncated", "--seeds", "0"],
    "compare_objectives.py": [
        *(*QUICK, "--objectives", "elbo", "rws", "--seeds", "0", "--particles", "1", "2"),
        *("--noise-particles", "1", "2", "--repeats", "2", "--half-trained", "2"),
    ],
    "survival.py": [
        "--sections",
        "kills",
        "--trials",
        "1",
        "--seeds",
        "1",
        "--layers",
        "1",
        "--steps",
        "2",
        "--jobs",
        "1",
    ],
    "bits_back.py": ["--ndims", "3", "--samples", "300", "--steps", "4", "--guides", "gaussian"],
    "ablation.py": ["--ndims", "3", "--seeds", "2", "--steps", "2", "--jobs", "1"],
    "reliability.py": ["--ndims", "3", "--layers", "1", "2", "--seeds", "2", "--steps", "3", "--jobs", "1"],
    "benchmark_training.py": [
        *("--steps", "3", "--ndims", "3", "--layers", "1", "--repeats", "1", "--threads", "1"),
        *("--contenders", "package", "torch", "--sections", "cells", "step"),
    ],
}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ANALYSIS))
    spec = importlib.util.spec_from_file_location(name, ANALYSIS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_tested() -> None:
    assert {path.name for path in ANALYSIS.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("script", sorted(SMALL))
def test_script(script: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(script.removesuffix(".py"), monkeypatch)
    module.main(module.parse([*SMALL[script], "--out", str(tmp_path)]))
    assert list(tmp_path.glob("*.csv"))
    assert list(tmp_path.rglob("*.png"))
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("script", ["exact_posterior", "iwae_bounds", "negative_kl1", "when_is_z_used", "calibration"])
def test_a_trained_run_is_looked_at(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(ndims=4, layers=2, prob=0.3, steps=20, seed=SEED)
    save_run(fit(*build(config), config), tmp_path / "run")
    module = load(script, monkeypatch)
    small = SMALL[f"{script}.py"]
    module.main(module.parse([*small, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]))
    assert "| 4 |" in capsys.readouterr().out
    assert not (tmp_path / "out" / "runs").exists()


def test_reliability_goes_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("reliability", monkeypatch)
    small = ["--ndims", "3", "--layers", "1", "--steps", "2", "--jobs", "1", "--out", str(tmp_path)]
    first = module.train(module.parse([*small, "--seeds", "1"]))
    monkeypatch.setattr("pyro_onebit.runs.fit", None)  # would fail if anything were trained again
    assert module.train(module.parse([*small, "--seeds", "1"])) == first
