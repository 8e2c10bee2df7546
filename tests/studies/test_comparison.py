import json
from pathlib import Path

import pytest

from pyro_onebit import Config, InputError
from pyro_onebit.cli import main
from pyro_onebit.files import read_table
from pyro_onebit.studies import columns_of, compare, records

QUICK = ["--ndims", "3", "--steps", "5", "--jobs", "1", "--quiet"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["compare", "--guides", "gaussian", "truncated", "oracle", *QUICK, "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = records(read_table(tmp_path / "comparison.csv"))
    assert list(rows[0]) == [column.name for column in columns_of("comparison")]
    assert [row["guide"] for row in rows] == ["gaussian", "truncated", "oracle"]
    assert [row["loss"] for row in printed["rows"]] == [row["loss"] for row in rows]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["loss-seconds.png", "posteriors.png"]
    assert (tmp_path / "report.html").exists()
    for row in printed["rows"]:
        assert row["amortisation"] + row["approximation"] == pytest.approx(row["kl_forward"], abs=1e-12)
    # Once more: nothing is trained again, and the same comes out.
    assert main(arguments) == 0
    assert f"{rows[0]['loss']:.5f}" in capsys.readouterr().out
    assert records(read_table(tmp_path / "comparison.csv")) == rows
    assert main([*arguments, "--dry-run"]) == 0
    assert "0 of 3 runs are missing" in capsys.readouterr().out
    # It is a study, as a file too.
    again = ["compare", "--config", str(tmp_path / "study.toml"), "--out", str(tmp_path / "again"), "--dry-run"]
    assert main([*again, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 3
    assert main(["compare", "--guides", "gaussian", *QUICK, "--out", str(tmp_path)]) == 2
    assert "holds another study (guides ('gaussian', 'truncated', 'oracle') there" in capsys.readouterr().err


def test_another_run_in_the_same_place_is_refused(tmp_path: Path) -> None:
    config = Config(ndims=3, steps=5)
    compare([config], tmp_path, 1)
    path = next((tmp_path / "runs").iterdir())
    (path / "config.json").write_text((path / "config.json").read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="holds another run \\(seed 1 there, 0 here\\)"):
        compare([config], tmp_path, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guides", "nonsense"], "guide is 'nonsense'; it must be one of"),
        (["--objectives", "nonsense"], "objective is 'nonsense'; it must be one of"),
        (["--guides", "truncated", "--objectives", "stl"], "objective 'stl' is wrong for guide 'truncated'"),
        (["--objectives", "rws", "--particles", "1"], "particles is 1; it must be at least 2"),
    ],
)
def test_what_the_user_got_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_that_fails_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("the loss is not finite")

    monkeypatch.setattr("pyro_onebit.studies.comparison.gap_split", fail)
    assert main(["compare", "--guides", "gaussian", *QUICK, "--out", str(tmp_path)]) == 1
    assert "the loss is not finite" in capsys.readouterr().err
    assert read_table(tmp_path / "comparison.csv").empty
