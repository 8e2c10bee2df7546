"""The command, as a user meets it: main() in process, and the installed script once."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyro_onebit import GUIDES, MODELS, OBJECTIVES, RECIPES, GaussianGuide, register_guide
from pyro_onebit.cli import _COMMANDS, main
from pyro_onebit.files import read_table
from pyro_onebit.registry import origin_of
from pyro_onebit.settings import GridSettings
from pyro_onebit.studies import check_table, columns_of, records


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--ndims", "3", "--layers", "2", "--steps", "5", "--quiet", "--out", str(path)]) == 0
    return path


def test_train_writes_a_run(run_directory: Path) -> None:
    names = ["config.json", "history.csv", "metrics.json", "parameters.safetensors", "posterior.nc"]
    assert sorted(path.name for path in run_directory.iterdir()) == names
    assert list(json.loads((run_directory / "metrics.json").read_text())) == [
        column.name for column in columns_of("results")
    ]


def test_train_keeps_what_is_there(run_directory: Path, capsys: pytest.CaptureFixture) -> None:
    same = ["train", "--ndims", "3", "--layers", "2", "--steps", "5", "--quiet", "--out", str(run_directory)]
    before = (run_directory / "parameters.safetensors").stat().st_mtime_ns
    assert main([*same, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((run_directory / "metrics.json").read_text())
    assert (run_directory / "parameters.safetensors").stat().st_mtime_ns == before
    assert captured.err == f"{run_directory} had this run already; it was not trained again\n"
    assert main([*same, "--seed", "1", "--dtype", "float64"]) == 2
    assert "holds another run (seed 0 there, 1 here; dtype 'float32' there, 'float64' here)" in capsys.readouterr().err


def test_evaluate_recomputes_the_metrics(run_directory: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(run_directory), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    errors, notes, threshold, checks = (printed.pop(name) for name in ("errors", "notes", "threshold", "posterior"))
    order, information = printed.pop("order"), printed.pop("bit_information")
    assert sorted(order) == ["0", "1"]
    assert information == pytest.approx([printed["mutual_information"]], abs=1e-9)
    assert notes == {}
    assert max(errors.values()) < 1e-6
    assert threshold["ideal"] == pytest.approx(0.0, abs=1e-12)
    assert [row["latent"] for row in checks] == ["z2"] * 4 + ["z1"] * 2 + ["z1,z2"] * 2
    assert printed == json.loads((run_directory / "metrics.json").read_text())
    assert main(["evaluate", str(run_directory)]) == 0
    shown = capsys.readouterr().out
    assert f"loss               {printed['loss']:.8f}" in shown
    assert f"{checks[0]['kl_reverse']:.5f}" in shown


def test_bounds(run_directory: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["bounds", str(run_directory), "--particles", "1", "40", "--repeats", "3"]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["elbo"] < printed["log_evidence"] < printed["eubo"]
    assert [row["particles"] for row in printed["rows"]] == [1] * 3 + [40] * 3
    assert main([*arguments, "--alpha", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][3]["expected"] < printed["rows"][3]["expected"]


def test_bounds_where_the_upper_one_is_infinite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A truncated guide has no mass where the posterior has some."""
    out = str(tmp_path / "run")
    assert main(["train", "--guide", "truncated", "--ndims", "3", "--steps", "3", "--quiet", "--out", out]) == 0
    capsys.readouterr()
    assert main(["bounds", out, "--particles", "2", "--repeats", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["eubo"] is None
    assert printed["elbo"] < printed["log_evidence"]
    assert main(["bounds", out, "--particles", "2", "--repeats", "2"]) == 0
    told = capsys.readouterr().out
    assert "EUBO inf" in told
    assert f"{printed['rows'][0]['expected']:.6f}" in told


def test_a_run_that_cannot_be_evaluated(run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its parameters are finite, and its likelihoods are not."""
    shutil.copytree(run_directory, tmp_path / "run")
    path = tmp_path / "run" / "parameters.safetensors"
    tensors = load_file(path)
    # Whatever it has learned, the outputs of p(z1|z2) are 1e30: as the logarithm of a scale that is too much.
    last = max(name.removesuffix(".bias") for name in tensors if "p_z1.net" in name and name.endswith(".bias"))
    tensors[f"{last}.weight"].zero_()
    tensors[f"{last}.bias"].fill_(1e30)
    save_file(tensors, path)
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert re.fullmatch(r"error: draws of z1 by the model are not finite\n", capsys.readouterr().err)


@pytest.mark.parametrize(("capture", "jobs"), [("capsys", "1"), ("capfd", "2")])
def test_what_a_guide_prints_is_no_part_of_it(
    tmp_path: Path, capture: str, jobs: str, request: pytest.FixtureRequest
) -> None:
    @register_guide("loud")
    class Loud(GaussianGuide):
        def forward(self, x: Tensor) -> None:
            print("what a user's program may print")
            super().forward(x)

    captured = request.getfixturevalue(capture)
    grid = ["--layers", "1", "--ndims", "2", "--seeds", "0", "1", "--steps", "3", "--jobs", jobs, "--quiet"]
    assert main(["study", "--guides", "loud", *grid, "--json", "--out", str(tmp_path)]) == 0
    rows = records(check_table(read_table(tmp_path / "results.csv"), "results"))
    assert json.loads(captured.readouterr().out)["rows"] == rows
    assert [row["seed"] for row in rows] == [0, 1]


def test_study(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grid = ["--ndims", "1", "5", "--layers", "1", "2", "--steps", "3", "--jobs", "2", "--quiet"]
    assert main(["study", *grid, "--out", str(tmp_path)]) == 0
    assert "0.72147" in capsys.readouterr().out  # the original's figures stand beside
    rows = records(check_table(read_table(tmp_path / "results.csv"), "results"))
    assert [(row["layers"], row["ndims"]) for row in rows] == [(1, 1), (1, 5), (2, 1), (2, 5)]
    assert len(list((tmp_path / "runs").iterdir())) == 4
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == ["aggregate.png", "information.png", "loss.png", "posterior.png"]
    # A run is the same alone, in one process, and beside others.
    alone = tmp_path / "alone"
    main(["train", "--ndims", "5", "--layers", "2", "--steps", "3", "--quiet", "--out", str(alone)])
    in_study = {**rows[-1], "seconds": None}
    assert {**json.loads((alone / "metrics.json").read_text()), "seconds": None} == in_study


def test_a_failed_training_is_reported_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    assert main(["train", "--lr", "1e30", "--steps", "20", "--quiet", "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert (out / "parameters.safetensors").exists()
    assert not (out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--ndims", "0", "--out", "OUT"], "ndims is 0; it must be a whole number from 1"),
        (["train", "--guide", "gausian", "--out", "OUT"], "; did you mean gaussian?"),
        (["train", "--out", "/dev/null/run"], "cannot write /dev/null/run"),
        (["train"], "--out"),
        (["train", "--ndims", "five", "--out", "OUT"], "--ndims"),
        (["study", "--ndims", "0", "--out", "OUT"], "ndims is 0"),
        (["study", "--jobs", "0", "--out", "OUT"], "jobs is 0; it must be at least 1"),
        (["study", "--out", "/dev/null/study"], "cannot write /dev/null/study"),
        (["evaluate", "OUT/nothing"], "cannot read"),
        (["evaluate"], "DIR"),
        (["bounds", "RUN", "--particles", "0"], "particles is 0"),
        (["bounds", "RUN", "--particles", "1.5"], "--particles"),
        (["bounds", "RUN", "--repeats", "1000000000000"], "GB of memory"),
        (["train", "--particles", "10000000000", "--out", "OUT"], "GB of memory"),
        (["train", "--steps", "1" + 30 * "0", "--out", "OUT"], "it must be from 1 to 1000000000"),
        (["study", "--timeout", "0", "--out", "OUT"], "timeout is 0.0; it must be positive"),
        (["nonsense"], "'nonsense' is no command; see `onebit --help`"),
        ([], "study"),
    ],
)
def test_what_the_user_got_wrong(
    arguments: list[str], message: str, tmp_path: Path, run_directory: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {"OUT": str(tmp_path), "RUN": str(run_directory)}
    assert main([places.get(argument, argument).replace("OUT", str(tmp_path)) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tmp_path.chmod(0o500)
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_installed_command() -> None:
    command = shutil.which("onebit", path=str(Path(sys.executable).parent))
    assert command is not None
    helped = subprocess.run([command, "train", "--help"], capture_output=True, text=True, check=True)
    assert "--ndims" in helped.stdout
    refused = subprocess.run([command, "train", "--ndims", "none"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["stduy"], "study"), (["study", "--ndim", "5"], "--ndims"), (["train", "--sed=1"], "--seed")],
)
def test_what_may_have_been_meant(arguments: list[str], meant: str, capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, *(["--out", "x"] if arguments[0] == "train" else [])]) == 2
    assert f"; did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flag", "kind"),
    [
        ("study", "guides", "guide"),
        ("compare", "objectives", "objective"),
        ("train", "model", "model"),
        ("train", "preset", "preset"),
    ],
)
def test_help_names_what_is_registered(command: str, flag: str, kind: str, capsys: pytest.CaptureFixture) -> None:
    registries = {registry.kind: registry for registry in (GUIDES, MODELS, OBJECTIVES, RECIPES)}
    own = {name for name, entry in registries[kind].items() if origin_of(entry) is None}  # not what a test brought
    assert main([command, "--help"]) == 0
    helped = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    named = helped.partition(f"--{flag} NAME")[2].partition("Choices: ")[2].partition(";")[0]
    assert set(named.split(", ")) == own


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([command, "--help"]) == 0
    assert f"\nexamples:\n  onebit {command}" in capsys.readouterr().out


def test_the_demo_tells_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_onebit.cli.study.GridSettings", partial(GridSettings, steps=3, layers=(1,)))
    assert main(["demo", "--jobs", "1", "--quiet", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert told[0].startswith("The latent is ")
    assert told[1].startswith("With one layer (guide gaussian) ")
    assert (tmp_path / "figures" / "information.png").exists()
