import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import SEED

from pyro_onebit import Config, InputError, Run, build, exact, fit, load_run, save_run
from pyro_onebit.files import write_whole
from pyro_onebit.runs import COLUMNS, read_table, write_table


@pytest.fixture(scope="module")
def run() -> Run:
    config = Config(ndims=4, layers=2, steps=5, prob=0.3, seed=SEED)
    return fit(*build(config), config)


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    save_run(run, tmp_path / "run")
    return tmp_path / "run"


def test_round_trip(run: Run, saved: Path) -> None:
    loaded = load_run(saved)
    assert loaded.config == run.config
    assert loaded.history == run.history
    assert loaded.metrics == run.metrics
    assert exact.evaluate(loaded.model, loaded.guide, loaded.data) == exact.evaluate(run.model, run.guide, run.data)
    assert sorted(p.name for p in saved.iterdir()) == ["checkpoint.pt", "config.json", "history.csv", "metrics.json"]


def test_metrics_are_the_columns_of_the_results(saved: Path) -> None:
    assert tuple(json.loads((saved / "metrics.json").read_text())) == COLUMNS


def test_checkpoint_loads_as_weights_only(saved: Path) -> None:
    assert set(torch.load(saved / "checkpoint.pt", weights_only=True)) == {"model", "guide"}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_config(path: Path, **changes: object) -> None:
    edit(path / "config.json", **changes)


def swell(path: Path) -> None:
    """An archive of a few kilobytes that unpacks to 64 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "config.json").unlink(), "cannot read .*config.json"),
        (lambda p: (p / "config.json").write_text("{"), "not JSON"),
        (lambda p: (p / "config.json").write_text("[" * 100_000), "not JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "holds a list"),
        (lambda p: edit_config(p, format=99), "has format 99"),
        (lambda p: edit_config(p, ndims="four"), "ndims is 'four'"),
        (lambda p: edit_config(p, layers=[1]), r"layers is \[1\]; it must be 1 or 2"),
        (lambda p: edit_config(p, guide="unknown"), "guide is 'unknown'"),
        (lambda p: edit_config(p, recipe={}), "another 'default' recipe"),
        (lambda p: (p / "checkpoint.pt").unlink(), "cannot read .*checkpoint.pt"),
        (lambda p: (p / "checkpoint.pt").write_bytes(b""), "damaged"),
        (lambda p: (p / "checkpoint.pt").write_bytes((p / "checkpoint.pt").read_bytes()[:-2000]), "damaged"),
        (lambda p: (p / "checkpoint.pt").write_bytes(b"x" * 5_000_000), "has 5000000 bytes"),
        (lambda p: swell(p / "checkpoint.pt"), "unpacks to"),
        (lambda p: pipe(p / "config.json"), "a pipe or a device"),
        (lambda p: (p / "metrics.json").write_text('{"loss": 1}'), "damaged, or not of this run: its ndims is None"),
        (lambda p: edit(p / "metrics.json", layers=1), "not of this run: its layers is 1"),
        (lambda p: edit(p / "metrics.json", loss=float("nan")), "its loss is nan"),
        (lambda p: edit(p / "metrics.json", seconds=10**400), "its seconds is 1000"),
        (lambda p: edit_config(p, seed=0.5), "seed is 0.5; it must be a whole number"),
        (lambda p: edit_config(p, layers=2.0), "layers is 2.0"),
        (lambda p: (p / "metrics.json").write_text("[]"), "holds a list"),
        (lambda p: torch.save({"model": {}}, p / "checkpoint.pt"), "damaged"),
        (lambda p: edit_config(p, ndims=7), "damaged, or not of this run"),
        (lambda p: (p / "history.csv").write_text("a,b\n1\n"), "damaged"),
    ],
)
def test_damage_is_said_in_one_line(saved: Path, damage: object, message: str) -> None:
    damage(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_run(saved)
    assert "\n" not in str(caught.value)


def test_parameters_that_are_not_finite(run: Run, saved: Path) -> None:
    states = torch.load(saved / "checkpoint.pt", weights_only=True)
    states["model"]["p_x.net.layers.0.bias"].fill_(torch.nan)
    torch.save(states, saved / "checkpoint.pt")
    with pytest.raises(InputError, match="not finite"):
        load_run(saved)


def test_a_pickle_is_not_executed(saved: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"model": Hostile(), "guide": {}}, saved / "checkpoint.pt")
    with pytest.raises(InputError):
        load_run(saved)
    assert not (tmp_path / "executed").exists()


def test_write_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_whole(target, b"first")
    write_whole(target, b"second")
    assert target.read_bytes() == b"second"
    assert [p.name for p in target.parent.iterdir()] == ["file"]
    with pytest.raises(InputError, match="cannot write"):
        write_whole(target / "below", b"")
    with pytest.raises(InputError, match="cannot write"):
        write_whole(target.parent, b"")
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_table_keeps_every_digit(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 0.1 + 0.2, "c": "gaussian"}, {"a": 2, "b": 1e-300, "c": "x,y"}]
    write_table(tmp_path / "t.csv", ["a", "b", "c"], rows)
    assert read_table(tmp_path / "t.csv") == rows
