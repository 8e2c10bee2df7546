import json
from pathlib import Path

import pytest

from pyro_onebit.cli import main
from pyro_onebit.files import read_table
from pyro_onebit.studies import columns_of, records

QUICK = ["--ndims", "3", "--steps", "5", "--jobs", "1", "--quiet"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["compare", "--guides", "gaussian", "truncated", *QUICK, "--out", str(tmp_path)]
    assert main(arguments) == 0
    rows = records(read_table(tmp_path / "comparison.csv"))
    assert f"{rows[0]['loss']:.5f}" in capsys.readouterr().out
    assert list(rows[0]) == [column.name for column in columns_of("comparison")]
    assert [row["guide"] for row in rows] == ["gaussian", "truncated"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["loss-seconds.png", "posteriors.png"]
    for row in rows:
        assert row["amortisation"] + row["approximation"] == pytest.approx(row["kl_forward"], abs=1e-12)
    before = (tmp_path / "report.html").read_text()
    assert "approximation" in before
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == before
    # Nothing would be trained again.
    assert main([*arguments, "--dry-run"]) == 0
    assert "0 of 2 runs are missing" in capsys.readouterr().out
    # It is a study, as a file too.
    again = ["compare", "--config", str(tmp_path / "study.toml"), "--out", str(tmp_path / "again"), "--dry-run"]
    assert main([*again, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 2
    assert main(["compare", "--guides", "gaussian", *QUICK, "--out", str(tmp_path)]) == 2
    assert "holds another study (guides ('gaussian', 'truncated') there" in capsys.readouterr().err


def test_a_run_that_fails_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("the loss is not finite")

    monkeypatch.setattr("pyro_onebit.studies.comparison.gap_split", fail)
    assert main(["compare", "--guides", "gaussian", *QUICK, "--out", str(tmp_path)]) == 1
    assert "the loss is not finite" in capsys.readouterr().err
    assert read_table(tmp_path / "comparison.csv").empty
