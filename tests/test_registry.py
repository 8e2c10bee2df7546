"""What is registered is known everywhere: to configurations, the command line, errors, and other processes."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyro.infer import Trace_ELBO

from pyro_onebit import (
    GUIDES,
    Config,
    GaussianGuide,
    InputError,
    build,
    register_guide,
    register_model,
    register_objective,
    register_recipe,
)
from pyro_onebit.cli import main
from pyro_onebit.registry import REGISTRIES, Registry

REGISTERS = {
    "guide": register_guide,
    "model": register_model,
    "objective": register_objective,
    "preset": register_recipe,
}


@pytest.mark.parametrize("field", REGISTERS)
def test_a_name_is_one_things(field: str) -> None:
    register = REGISTERS[field]
    taken = next(iter(REGISTRIES[field]))

    class Mine(GaussianGuide):
        layers = 1

    with pytest.raises(InputError, match=f"{field} '{taken}' is already registered"):
        register(taken)(Mine)
    with pytest.raises(InputError, match="take letters, digits"):
        register("a/b")(Mine)
    with pytest.raises(InputError, match=rf"{field} is 'nonsense'; it must be one of .*{taken}"):
        Config(**{field: "nonsense"})


def cell(scale: float) -> type:
    """What a notebook's cell does, each time it is run: the same class, written again."""

    class InACell(GaussianGuide):
        _scale = scale

    return InACell


def test_the_same_class_again_replaces_the_first() -> None:
    register_guide("in_a_cell")(cell(1.0))
    second = register_guide("in_a_cell")(cell(2.0))
    assert GUIDES["in_a_cell"] is second

    class Other(GaussianGuide):
        pass

    with pytest.raises(InputError, match="already registered"):
        register_guide("in_a_cell")(Other)


def test_what_a_guide_declares() -> None:
    class Slow(GaussianGuide):
        effort = 3
        lr = 1e-3

    register_guide("slow")(Slow)
    recipe, usual = Config(guide="slow").recipe, Config().recipe
    assert (recipe.steps, recipe.lr) == (3 * usual.steps, 1e-3)


@pytest.mark.parametrize(("name", "value"), [("efort", 3), ("learning_rate", 1e-3), ("starts", None), ("bins", 16)])
def test_a_misspelt_declaration_is_an_error(name: str, value: object) -> None:
    with pytest.raises(
        InputError, match=rf"has a constant '{name}'; a guide declares layers, start, learns_start, effort, lr"
    ):
        register_guide("mine")(type("Mine", (GaussianGuide,), {name: value}))
    assert "mine" not in GUIDES


def test_a_guide_learns_its_model() -> None:
    seen = []

    class Curious(GaussianGuide):
        def bind_model(self, model) -> None:
            seen.append(model)

    register_guide("curious")(Curious)
    model, _, _ = build(Config(guide="curious", ndims=2))
    assert seen == [model]


def test_models_and_guides_go_with_layers() -> None:
    with pytest.raises(InputError, match="model 'two_layer' belongs to 2 layer"):
        Config(model="two_layer")
    with pytest.raises(InputError, match="guide 'two_layer' belongs to 2 layer"):
        Config(guide="two_layer")


def test_an_objective_says_what_it_can(tmp_path: Path) -> None:
    register_objective("mine", fewest=3)(type("Mine", (Trace_ELBO,), {}))
    with pytest.raises(InputError, match="particles is 2; it must be at least 3"):
        Config(objective="mine", particles=2)
    with pytest.raises(InputError, match=r"'mine' is wrong for guide 'truncated'.*; take one of elbo, iwae, renyi"):
        Config(objective="mine", guide="truncated")


def test_a_registry_of_ones_own() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    assert registry.find("one") == 1
    with pytest.raises(InputError, match=r"number is .two.; it must be one of one"):
        registry.find("two")


SCRIPT = """
import sys
from dataclasses import replace
import torch
from pyro.infer import Trace_ELBO
from pyro.distributions import Laplace
from pyro_onebit import (OneLayerGuide, OneLayerModel, RECIPES, register_guide, register_model, register_objective,
                         register_recipe)
from pyro_onebit.cli import main

@register_guide("laplace")
class LaplaceGuide(OneLayerGuide):
    def __init__(self, ndims, prob, arch):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.3))

    def q_z1(self, x):
        side = 2 * x.mean(-1, keepdim=True) - 1
        return Laplace(side, self.scale.abs() * torch.ones_like(side)).to_event(1)

@register_model("mine")
class MyModel(OneLayerModel):
    pass

@register_objective("my_elbo")
class MyELBO(Trace_ELBO):
    pass

@register_recipe("short")
def short(layers):
    return replace(RECIPES["default"](layers), steps=7)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_other_processes_know_what_a_script_registers(tmp_path: Path) -> None:
    """A guide, a model, an objective and a recipe of a user's script, in two worker processes."""
    script = tmp_path / "mine.py"
    script.write_text(textwrap.dedent(SCRIPT))
    own = ["--models", "mine", "--guides", "laplace", "--objectives", "my_elbo", "--preset", "short"]
    grid = ["study", "--ndims", "2", "--layers", "1", "--seeds", "0", "1", "--jobs", "2", "--quiet", "--out"]
    command = [sys.executable, str(script), *grid, str(tmp_path / "out"), *own]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table[["model", "guide", "objective", "steps"]].drop_duplicates().values.tolist() == [
        ["mine", "laplace", "my_elbo", 14]  # a guide that does not say so takes twice the recipe's
    ]
    assert table["optimum"].isna().all()


def test_the_command_line_names_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    register_guide("brought")(type("Brought", (GaussianGuide,), {}))
    assert main(["study", "--guides", "nonsense", "--out", str(tmp_path)]) == 2
    assert "brought" in capsys.readouterr().err


MY_GUIDES = """
import torch
from pyro.distributions import Laplace
from my_scale import SCALE
from pyro_onebit import OneLayerGuide, register_guide

@register_guide("laplace")
class LaplaceGuide(OneLayerGuide):
    def __init__(self, ndims, prob, arch):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(SCALE))

    def q_z1(self, x):
        side = 2 * x.mean(-1, keepdim=True) - 1
        return Laplace(side, self.scale.abs() * torch.ones_like(side)).to_event(1)
"""


@pytest.fixture
def my_guides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's file, which needs another one that lies beside it."""
    (tmp_path / "my_guides.py").write_text(MY_GUIDES)
    (tmp_path / "my_scale.py").write_text("SCALE = 0.3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("pyro_onebit.registry._IMPORTED", {})
    yield tmp_path
    for name in ("my_guides", "my_scale"):
        sys.modules.pop(name, None)


def test_the_command_line_imports_a_file(my_guides: Path, capsys: pytest.CaptureFixture) -> None:
    """Worker processes import it too, a study's file names it, and a run remembers it, by its name only."""
    grid = ["--guides", "gaussian", "laplace", "--layers", "1", "--ndims", "2", "--steps", "2", "--jobs", "2"]
    assert main(["--import", "my_guides.py", "study", *grid, "--out", "out", "--quiet"]) == 0
    [run] = (my_guides / "out" / "runs").glob("*laplace*")
    content = json.loads((run / "config.json").read_text())
    assert content["origins"] == {"guide": "my_guides.LaplaceGuide"}
    assert str(my_guides) not in (my_guides / "out" / "study.toml").read_text()

    GUIDES.pop("laplace")
    assert main(["evaluate", str(run)]) == 2
    hint = "(it was my_guides.LaplaceGuide); import the file that registers it: in Python, or with `onebit --import my_"
    assert hint in capsys.readouterr().err

    sys.modules.pop("my_guides")
    assert main(["--import", "my_guides.py", "evaluate", str(run)]) == 0
    GUIDES.pop("laplace")
    sys.modules.pop("my_guides")
    assert main(["study", "--config", "out/study.toml", "--out", "again", "--jobs", "1", "--quiet"]) == 0
    same = [pd.read_csv(my_guides / out / "results.csv").drop(columns="seconds") for out in ("out", "again")]
    pd.testing.assert_frame_equal(*same)


def test_what_cannot_be_imported(my_guides: Path, capsys: pytest.CaptureFixture) -> None:
    (my_guides / "broken.py").write_text("raise ValueError('no good')")
    (my_guides / "json.py").write_text("")
    for source, why in (
        ("none.py", "there is no such file"),
        ("no.such.module", "ModuleNotFoundError: No module named 'no'"),
        ("broken.py", "ValueError: no good"),
        ("json.py", "there is another module 'json'; give the file another name"),
    ):
        assert main(["--import", source, "study", "--dry-run"]) == 2
        assert f"error: cannot import {source}: {why}" in capsys.readouterr().err
