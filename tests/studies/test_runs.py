import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SEED
from safetensors.torch import load_file, save_file

from pyro_onebit import Config, InputError, Run, TrainingError, build, exact, fit, load_run, save_run
from pyro_onebit.studies import train

PARAMETERS = "parameters.safetensors"


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
    loaded.judge()
    assert loaded.metrics == run.metrics
    assert sorted(p.name for p in saved.iterdir()) == [
        "config.json",
        "history.csv",
        "metrics.json",
        "parameters.safetensors",
    ]


def test_a_figure_that_is_not_known_stays_so(run: Run, tmp_path: Path) -> None:
    save_run(replace(run, metrics={**run.metrics, "kl1": None}), tmp_path / "run")
    assert load_run(tmp_path / "run").metrics["kl1"] is None


@pytest.mark.parametrize(
    ("loss", "message", "options"),
    [
        (None, "loss is not known: for a test", {}),
        (math.inf, "loss is infinite", {}),
        (math.inf, "loss is infinite", {"guide": "flow"}),  # which begins again
    ],
)
def test_a_loss_that_is_no_number_is_a_failure(
    loss: float | None, message: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlike(*programs: Any) -> exact.Evaluation:
        figures = exact.evaluate(*programs)
        figures["loss"] = loss
        figures.notes["loss"] = "for a test"
        return figures

    monkeypatch.setattr("pyro_onebit.training.run.evaluate", unlike)
    with pytest.raises(TrainingError, match=message):
        train(Config(ndims=2, steps=2, **options), tmp_path / "run")
    assert (tmp_path / "run" / PARAMETERS).exists()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_what_cannot_be_saved_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its loss is inf; it must be a finite number"):
        save_run(replace(run, metrics={**run.metrics, "loss": math.inf}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parameters_are_safetensors(saved: Path, run: Run) -> None:
    tensors = load_file(saved / PARAMETERS)
    state = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    assert {name for name in tensors if name.startswith("model.")} == set(state)
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


def test_a_run_that_lacks_what_came_later_has_its_default(saved: Path, run: Run) -> None:
    content = json.loads((saved / "config.json").read_text())
    del content["config"]["model"], content["recipe"]["clip"], content["recipe"]["arch"]["start"]["beta"]
    (saved / "config.json").write_text(json.dumps(content))
    edit(saved / "metrics.json", model=...)
    loaded = load_run(saved)
    assert loaded.config == run.config
    assert (loaded.recipe.clip, loaded.recipe.arch.start.beta) == (None, 1.0)
    assert loaded.metrics == run.metrics


def test_a_run_is_built_by_the_recipe_it_was_trained_by(saved: Path) -> None:
    """A later version's recipe of the same name may have other networks."""
    config = Config(ndims=4, layers=2, steps=5, prob=0.3)
    other = replace(config.recipe, arch=replace(config.recipe.arch, width_x=7))
    model, guide, data = build(config, other)
    save_run(Run(model, guide, data, config, other), saved.with_name("other"))
    loaded = load_run(saved.with_name("other"))
    assert loaded.recipe == other
    assert loaded.recipe != config.recipe
    assert next(loaded.guide.parameters()).shape[0] == 7


def edit(path: Path, *where: str, **changes: object) -> None:
    """Change values of a JSON object, or of one within it; `...` removes."""
    content = json.loads(path.read_text())
    part = content
    for name in where:
        part = part[name]
    part.update(changes)
    for name in [name for name, value in part.items() if value is ...]:
        del part[name]
    path.write_text(json.dumps(content))


def edit_config(path: Path, **changes: object) -> None:
    edit(path / "config.json", "config", **changes)


def edit_recipe(path: Path, *where: str, **changes: object) -> None:
    edit(path / "config.json", "recipe", *where, **changes)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "config.json").unlink(), "cannot read .*: it holds no run"),
        (lambda p: (p / "config.json").write_text("{"), "not JSON"),
        (lambda p: (p / "config.json").write_text("[" * 100_000), "not JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "holds a list"),
        (lambda p: edit(p / "config.json", format=99), "has format 99"),
        (lambda p: edit(p / "config.json", format=3), "has format 3, .* reads format 4; train it again"),
        (lambda p: edit(p / "config.json", config=[]), "config is \\[\\], not an object"),
        (lambda p: edit(p / "config.json", recipe=...), "recipe is None, not an object"),
        (lambda p: edit_config(p, ndims="four"), "ndims is 'four'; it must be a whole number"),
        (lambda p: edit_config(p, layers=[1]), r"layers is \[1\]; it must be a whole number"),
        (lambda p: edit_config(p, guide="unknown"), "guide 'unknown' is not known here; import the file"),
        (lambda p: edit_config(p, colour="red"), "config has 'colour'; it may have ndims"),
        (lambda p: edit_config(p, seed=0.5), "seed is 0.5; it must be a whole number"),
        (lambda p: edit_config(p, layers=2.0), "layers is 2.0"),
        (lambda p: edit_config(p, dtype="float16"), "dtype is 'float16'; it must be one of float32, float64"),
        (lambda p: edit_config(p, ndims=7), "damaged, or not of this run"),
        (lambda p: edit_recipe(p, steps="ten"), "steps is 'ten'; it must be a whole number"),
        (lambda p: edit_recipe(p, steps=...), "recipe lacks steps"),
        (lambda p: edit_recipe(p, lr=-1.0), "lr is -1.0; it must be positive"),
        (lambda p: edit_recipe(p, "first", share=1.0), "share is 1.0; it must be at least 0 and less than 1"),
        (lambda p: edit_recipe(p, "arch", width_z=10**9), "width_z is 1000000000; it must be from 1 to 4096"),
        (lambda p: edit_recipe(p, "arch", "start", centre="left"), "centre is 'left'; it must be one of zero"),
        (lambda p: (p / PARAMETERS).unlink(), f"cannot read .*{PARAMETERS}"),
        (lambda p: (p / PARAMETERS).write_bytes(b""), "damaged"),
        (lambda p: (p / PARAMETERS).write_bytes((p / PARAMETERS).read_bytes()[:-2000]), "damaged"),
        (lambda p: (p / PARAMETERS).write_bytes(b"x" * 5_000_000), "has 5000000 bytes"),
        (lambda p: (p / PARAMETERS).write_bytes(b"\xff" * 100), "damaged"),
        (lambda p: save_file({"model.x": torch.zeros(1)}, p / PARAMETERS), "damaged, or not of this run"),
        (lambda p: pipe(p / "config.json"), "a pipe or a device"),
        (lambda p: (p / "metrics.json").write_text('{"loss": 1}'), "its layers is None; it must be a whole number"),
        (lambda p: edit(p / "metrics.json", layers=1), "not of this run: its layers is 1"),
        (lambda p: (p / "metrics.json").write_text("[]"), "holds a list"),
        (lambda p: (p / "history.csv").write_text("a,b\n1,2,3\n"), "damaged"),
        (lambda p: (p / "history.csv").write_text("loss\nmuch\n"), "damaged"),
    ],
)
def test_damage_is_said_in_one_line(saved: Path, damage: object, message: str) -> None:
    damage(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_run(saved)
    assert "\n" not in str(caught.value)


def test_parameters_that_are_not_finite(saved: Path) -> None:
    tensors = load_file(saved / PARAMETERS)
    tensors["model.p_x.net.layers.0.bias"].fill_(torch.nan)
    save_file(tensors, saved / PARAMETERS)
    with pytest.raises(InputError, match="not finite"):
        load_run(saved)
