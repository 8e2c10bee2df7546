"""Every script in analysis/ runs, small, from its command line."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pyro
import pytest
from conftest import SEED

from pyro_onebit import Config, build, fit, load_run, save_run
from pyro_onebit.cli import main as onebit

ANALYSIS = Path(__file__).parents[2] / "analysis"
QUICK = ("--ndims", "3", "--steps", "20", "--jobs", "1")
#: Arguments that make a script quick; a script without an entry fails the test below.
SMALL = {
    "any_program.py": ["--cases", "own: build: gaussian", "refuse: a NaN for"],
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
        *("--sections", "kills", "--trials", "1", "--seeds", "1"),
        *("--layers", "1", "--steps", "2", "--jobs", "1"),
    ],
    "bits_back.py": ["--ndims", "3", "--samples", "300", "--steps", "4", "--guides", "gaussian"],
    "gray_code.py": ["--repeats", "2,1", "--seeds", "0", "--steps", "5", "--jobs", "1"],
    "which_bits.py": [
        *("--company", "alone", "5", "--repeats", "1", "2", "--trained", "2"),
        *("--seeds", "0", "--steps", "5", "--jobs", "1"),
    ],
    "amortisation.py": [
        *("--most", "1", "--bits", "1", "--widths", "2", "--trainings", "4"),
        *("--repeat", "2", "--seeds", "0", "--steps", "4", "--jobs", "1"),
    ],
    "ablation.py": [
        *("--cells", "2/3", "1/3/0.3", "--seeds", "1", "--steps", "2", "--jobs", "1"),
        *("--variants", "Adam alone", "independent noise", "no clipping"),
    ],
    "factorisations.py": [*QUICK, "--seeds", "0", "--cases", "top_down_flow", "learned_prior"],
    "reliability.py": ["--ndims", "3", "--layers", "1", "2", "--seeds", "2", "--steps", "3", "--jobs", "1"],
    "benchmarks/training.py": [
        *("--steps", "3", "--ndims", "3", "--layers", "1", "--repeats", "1", "--threads", "1"),
        *("--contenders", "package", "torch", "--sections", "cells", "step"),
    ],
    "benchmarks/seeds.py": ["--layers", "2", "--ndims", "3", "--seeds", "2", "--steps", "10", "--jobs", "1"],
    "benchmarks/outside.py": ["--sections", "containers", "--containers", "50", "--signed", "1"],
}
#: Those that look at the same two runs by `QUICK`, which the first of them trains.
LOOKS = ("exact_posterior.py", "iwae_bounds.py", "negative_kl1.py", "when_is_z_used.py", "calibration.py")
#: Scripts to read from top to bottom, which take no flags: quick arguments of their `main`, and what they print.
PLAIN: dict[str, tuple[dict[str, Any], str]] = {
    "bring_zuko.py": ({"steps": 20}, r"n = 5: [\d.]+ nats above the entropy; no Gaussian comes closer than 0\.3726"),
    "bring_objective.py": ({"steps": 20}, r"cyclical, n = 5: [\d.]+ nats above"),
    "bring_model.py": ({"steps": 20}, r"laplace_prior, n = 5, a Gaussian guide: [\d.]+ nats above"),
    "bring_two_layer_guide.py": ({"steps": 5, "ndims": 2}, r"mixture_skip, n = 2: [\d.]+ nats above"),
    "bring_samples.py": ({"steps": 100, "moves": 100}, r"SampleComparison\(wasserstein=\[0\.0\d+, 0\.0\d+\]"),
}


def load(script: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, as Python would run it: what lies beside it can be imported."""
    path, name = ANALYSIS / script, f"analysis_{Path(script).stem}"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    if script == "bits_back.py":  # tables of two latents in many bins take seconds
        monkeypatch.setattr(module, "BINS", module.BINS[:2])
    return module


def test_every_script_is_tested() -> None:
    scripts = {
        str(path.relative_to(ANALYSIS)) for folder in ("", "benchmarks") for path in (ANALYSIS / folder).glob("*.py")
    }
    # Environments take minutes to make, and a package index to make them from.
    assert scripts - {"codebooks.py", "common.py", "benchmarks/versions.py"} == {"svi.py", *SMALL, *PLAIN}


def test_scripts_import_public_names_only() -> None:
    """A room is imported by its name, for what it lists."""
    for path in ANALYSIS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pyro_onebit":
                room = importlib.import_module(str(node.module))
                assert str(node.module).count(".") <= 1, f"{path}: {node.module} is inside a room"
                assert {alias.name for alias in node.names} <= set(room.__all__), f"{path}: {node.module}"


def _ablated(table: pd.DataFrame) -> float:
    """What a run without clipping is further away, where it is most."""
    wide = table.pivot(index="variant", columns=["layers", "ndims", "prob"], values="worst")
    return float((wide.loc["no clipping"] / wide.loc["default"]).max())


def worst(table: pd.DataFrame, column: str, **where: object) -> float:
    for name, value in where.items():
        table = table[table[name] == value]
    return float(table[column].max())


#: What each script's answer must say: a pattern with a number, and that number from the table that it wrote.
ANSWERS = {
    "any_program.py": (
        r"3 cases: (\d) right, 0 refused, 0 silently wrong",
        lambda table: float(table.groupby("case")["verdict"].agg(lambda own: set(own) == {"right"}).sum()),
    ),
    "exact_posterior.py": (
        r"one layer, n = 3: (?:no|nearly)\..*? is ([\d.]+) away in Wasserstein-1",
        lambda table: worst(table, "wasserstein", layers=1, target="truncated"),
    ),
    "iwae_bounds.py": (r"two layers, n = 3: ([\d.]+) nats at K = 1,", lambda t: worst(t, "gap", layers=2, particles=1)),
    "negative_kl1.py": (r"n = 3: kl1 is (-?[\d.]+) because", lambda table: worst(table, "kl1", z1="kept")),
    "when_is_z_used.py": (
        r"one layer: z (?:is unused; it carries|is used from n = 3 on \()\s?([\d.]+)",
        lambda table: worst(table, "mutual_information", layers=1),
    ),
    "calibration.py": (
        r"two layers, n = 3: .*exact distance ([\d.]+)",
        lambda table: max(worst(table, f"ks_exact_{codeword}", layers=2) for codeword in (0, 1)),
    ),
    "custom_guide.py": (r"\(([\d.]+) against", lambda table: worst(table, "loss", guide="laplace")),
    "compare_guides.py": (
        r"the worst seed's: .*truncated ([\d.]+)",
        lambda t: worst(t, "worst_gap", guide="truncated"),
    ),
    "compare_objectives.py": (r"The lowest exact loss, ([\d.]+)", lambda table: float(table["worst_loss"].min())),
    "survival.py": (r"kills: (\d) of 1 ended", lambda table: float(table["same"].sum())),
    "bits_back.py": (r"gaussian, n = 3: ([\d.]+) ±", lambda table: worst(table, "net")),
    "ablation.py": (r"no clipping ([\d.e+]+)", _ablated),
    "factorisations.py": (
        r"top_down_flow: at most ([\d.]+\d)",
        lambda table: worst(table, "worst", case="top_down_flow"),
    ),
    "reliability.py": (r"default: \d+ of 4 runs collapsed; the worst ends ([\d.]+)", lambda t: worst(t, "worst")),
    "gray_code.py": (
        r"analytic start .* the worst run ends ([\d.e-]+) above",
        lambda table: worst(table, "worst", start="analytic"),
    ),
    "which_bits.py": (
        r"beside bits of 5 repeats is held from n = 1 on \(([\d.]+) nats",
        lambda table: worst(table, "held", company="5", repeats=1),
    ),
    "amortisation.py": (
        r"training from 4 to 4 the median amortisation gap goes from ([\d.e+-]+)",
        lambda table: worst(table, "median", varied="steps"),
    ),
    "benchmarks/outside.py": (
        r"(\d+) attempts: tracebacks 0, wrong results 0",
        lambda table: float(table["tried"].sum()),
    ),
    "benchmarks/seeds.py": (r"two layers.*the worst ends ([\d.e+-]+) nats", lambda t: worst(t, "worst", seeds=2)),
    "benchmarks/training.py": (r"[Aa] step costs ([\d.]+) to", lambda table: float(table["ratio"].min())),
}
TABLES = {"custom_guide.py": "comparison", "benchmarks/training.py": "step"}
FIGURES = {"custom_guide.py": "figures/posteriors.png", "benchmarks/training.py": "benchmark.png"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("looks")


@pytest.mark.parametrize("script", sorted(SMALL))
def test_script(
    script: str, tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes a table and a figure, and its answer says what the table does."""
    module = load(script, monkeypatch)
    if script == "benchmarks/training.py":  # processes would import again all that is imported here
        monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    if script == "survival.py":  # once the killed study's process is gone, the same command is as well run here
        in_its_own = subprocess.run

        def run(command: list[str], **kwargs: Any) -> None:
            if "undisturbed" in str(command):  # whose seconds say when to kill
                in_its_own(command, **kwargs)
            else:
                assert onebit(command[3:]) == 0

        monkeypatch.setattr(subprocess, "run", run)
    out = shared if script in LOOKS else tmp_path
    module.main(module.parse([*SMALL[script], "--out", str(out)]))
    assert (out / FIGURES.get(script, f"{Path(script).stem}.png")).exists()
    said = capsys.readouterr().out
    pattern, figure = ANSWERS[script]
    [number] = re.findall(pattern, said)[:1]
    value = figure(pd.read_csv(out / f"{TABLES.get(script, Path(script).stem)}.csv"))
    # To the digits that it is said with.
    digits = len(number.partition("e")[0].partition(".")[2])
    assert float(number) == pytest.approx(value, rel=1e-2 if "e" in number else 1e-12, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize("script", PLAIN)
def test_plain_script(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, pattern = PLAIN[script]
    with pyro.get_param_store().scope():
        load(script, monkeypatch).main(**arguments)
    assert re.search(pattern, capsys.readouterr().out)


def test_bounds_of_plain_svi(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled, they agree with their exact expectations; and the run that is kept can be read."""
    monkeypatch.chdir(tmp_path)
    module = load("svi.py", monkeypatch)
    with pyro.get_param_store().scope():
        module.main(steps=50)
    rows = re.findall(r"^ *\d+ +(-[\d.]+) ± ([\d.]+) +(-[\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 3
    assert all(abs(float(sampled) - float(exact)) < 6.0 * float(error) for sampled, error, exact in rows)
    run = load_run("results/svi", model=module.model, guide=module.guide)
    assert (run.metrics["guide"], run.metrics["steps"]) == ("guide", 50)
    assert Path("results/svi/posterior.png").exists()


def test_a_measurement_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("benchmarks/training.py", monkeypatch)
    [row] = module.fresh(module.measure.time_run, module.work_of("torch", 1, 2, 0, 20))
    assert (row["contender"], row["steps"]) == ("torch", 20)
    assert row["pid"] != os.getpid()
    assert row["training_s"] > 0.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(ndims=4, layers=2, prob=0.3, steps=20, seed=SEED)
    path = tmp_path_factory.mktemp("run")
    save_run(fit(*build(config), config), path)
    return path


@pytest.mark.parametrize("script", [*LOOKS, "bits_back.py"])
def test_a_trained_run_is_looked_at(
    script: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(script, monkeypatch)
    module.main(module.parse([*SMALL[script], "--run", str(run), "--out", str(tmp_path / "out")]))
    assert "| 4 |" in capsys.readouterr().out
    assert not (tmp_path / "out" / "runs").exists()


def test_reliability_goes_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("reliability.py", monkeypatch)
    small = ["--ndims", "3", "--layers", "1", "--steps", "2", "--jobs", "1", "--out", str(tmp_path)]
    first = module.train(module.parse([*small, "--seeds", "1"]))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/runs/*/parameters.safetensors")}
    assert len(kept) == 1
    pd.testing.assert_frame_equal(module.train(module.parse([*small, "--seeds", "1"])), first)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
