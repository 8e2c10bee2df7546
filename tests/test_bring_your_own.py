"""The table of what one may bring: every cell of docs/bring_your_own.md is done here, or refused."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro.optim import Adam
from scipy.stats import norm
from torch import Tensor

from pyro_onebit import (
    RECIPES,
    Config,
    DensityGuide,
    InputError,
    OneBitData,
    OneLayerGuide,
    OneLayerModel,
    Run,
    bounds,
    build,
    exact,
    fit,
    register_guide,
    register_model,
    register_objective,
    register_recipe,
)
from pyro_onebit.cli import main
from pyro_onebit.coding import Codec, pack, unpack
from pyro_onebit.diagnostics import compare_samples
from pyro_onebit.distributions import standard_normal
from pyro_onebit.studies import compare, compare_runs

DATA = OneBitData(3)
PAGE = (Path(__file__).parents[1] / "docs" / "bring_your_own.md").read_text(encoding="utf-8")
HEAD, _, *ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", PAGE, re.M)]
CELLS = [(row[0], column, cell) for row in ROWS for column, cell in zip(HEAD[1:], row[1:], strict=True)]


class Mine(OneLayerGuide):
    def __init__(self, ndims: int, prob: float, arch: Any) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def q_z1(self, x: Tensor) -> Any:
        side = 2.0 * x.mean(-1, keepdim=True) - 1.0
        return dist.Laplace(side, self.scale.exp() * torch.ones_like(side)).to_event(1)


class Foreign(OneLayerGuide):
    def __init__(self, ndims: int, prob: float, arch: Any) -> None:
        super().__init__()
        self.net = torch.nn.Linear(ndims, 1)

    def q_z1(self, x: Tensor) -> Any:
        return zuko.distributions.DiagNormal(self.net(x), torch.full((1,), 0.5, dtype=x.dtype))


class MyModel(OneLayerModel):
    pass


class MyELBO(Trace_ELBO):
    pass


class Module(PyroModule):
    """A plain one, of Pyro alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(2.0 * x[:, :1] - 1.0, self.scale).to_event(1))


def function(x: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(2.0 * x[:, :1] - 1.0, scale).to_event(1))


def decoder(x: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(4.0))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", standard_normal(x))
        logits = (slope * z1).expand(*z1.shape[:-1], x.shape[-1])
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


#: What is registered: how, and what a configuration says of it.
REGISTERED: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "a `Guide` class under `@register_guide`": (lambda: register_guide("mine")(Mine), {"guide": "mine"}),
    "a guide of torch's, Pyro's or zuko's distributions": (
        lambda: register_guide("foreign")(Foreign),
        {"guide": "foreign"},
    ),
    "a `Model` class under `@register_model`": (lambda: register_model("mine")(MyModel), {"model": "mine"}),
    "an ELBO class under `@register_objective`": (lambda: register_objective("mine")(MyELBO), {"objective": "mine"}),
    "a recipe under `@register_recipe`": (
        lambda: register_recipe("mine")(lambda layers: replace(RECIPES["default"](layers), steps=3)),
        {"preset": "mine"},
    ),
}
#: Guides that are no registered classes.
PROGRAMS: dict[str, Callable[[], Any]] = {
    "any module that is a Pyro program": Module,
    "a function with `pyro.param`": lambda: function,
    "an `AutoNormal`": lambda: AutoNormal(decoder),
    "a density alone, `DensityGuide(log_prob)`": lambda: DensityGuide(lambda z, x: norm.logpdf(z, 2.0 * x[0] - 1.0)),
}
SAMPLES = "samples alone"


@pytest.fixture(autouse=True)
def _own_store() -> Iterator[None]:
    with pyro.get_param_store().scope():
        yield


def test_the_table_has_every_kind() -> None:
    assert HEAD == ["what", "train", "exact", "bounds", "compare", "codec", "command line"]
    assert [row[0] for row in ROWS] == [*REGISTERED, *PROGRAMS, SAMPLES]
    assert all(cell.startswith(("works", "no: ")) for _, _, cell in CELLS)


@cache
def run_of(what: str) -> Run:
    """One for all columns that ask for no more."""
    if what in PROGRAMS:
        return Run.of(decoder, PROGRAMS[what](), DATA)
    register, chosen = REGISTERED[what]
    register()
    config = Config(ndims=3, steps=3, **chosen)
    return fit(*build(config), config)


@pytest.mark.parametrize(("what", "column"), [(w, c) for w, c, cell in CELLS if cell.startswith("works")])
def test_what_works(what: str, column: str, tmp_path: Path) -> None:
    if what == SAMPLES:
        truth = exact.evaluate(decoder, function, DATA).truth
        assert compare_samples(truth, torch.randn(100, 2)).ks.min() > 0.1
        return
    if what in REGISTERED and column in ("command line", "compare"):
        register, chosen = REGISTERED[what]
        register()
        if column == "command line":
            flags = [part for name, value in chosen.items() for part in (f"--{name}", value)]
            assert main(["train", "--ndims", "3", "--steps", "3", *flags, "--quiet", "--out", str(tmp_path)]) == 0
        else:
            [loss] = compare([Config(ndims=3, steps=3, **chosen)], tmp_path, jobs=1).table["loss"]
            assert loss > DATA.entropy
    elif what in PROGRAMS and column == "train":
        guide = PROGRAMS[what]()
        svi = SVI(decoder, guide, Adam({"lr": 0.05}), Trace_ELBO(num_particles=10))
        before = Run.of(decoder, guide, DATA).metrics["loss"] if what != "an `AutoNormal`" else 3.0
        for _ in range(60):
            svi.step(DATA.codewords)
        assert Run.of(decoder, guide, DATA).metrics["loss"] < before
    else:
        check(column, run_of(what), tmp_path)


def check(column: str, run: Run, out: Path) -> None:
    if column in ("train", "exact"):
        figures = exact.evaluate(run.model, run.guide, run.data)
        assert figures["loss"] == pytest.approx(run.metrics["loss"])
        assert figures["loss"] >= DATA.entropy
    elif column == "bounds":
        truth = exact.solve(run.model, run.guide, run.data)
        joint = exact.solve_joint(run.model, run.guide, run.data, truth)
        value, error = bounds.importance_bound(run.model, run.guide, run.data, 10, repeats=200).average
        assert abs(value - float(joint.law.expected_bound([10])[0] @ DATA.probs)) < 6.0 * error
    elif column == "compare":
        assert compare_runs([run], out).table["loss"].tolist() == [run.metrics["loss"]]
    else:
        container, _ = pack(Codec(run.model, run.guide, run.data), b"one", quiet=True)
        assert unpack(run.model, run.guide, run.data, container, quiet=True)[0] == b"one"


@pytest.mark.parametrize(("what", "column"), [(w, c) for w, c, cell in CELLS if cell.startswith("no: ")])
def test_what_does_not(what: str, column: str, tmp_path: Path) -> None:
    if what == SAMPLES:
        samples = torch.randn(100, 2)
        programs: tuple[Any, Any, OneBitData] = (decoder, samples, DATA)
        refused: dict[str, Callable[[], Any]] = {
            "train": lambda: fit(*programs, Config(ndims=3)),
            "bounds": lambda: bounds.importance_bound(*programs, 10),
            "compare": lambda: compare_runs([Run.of(*programs)], tmp_path),
            "codec": lambda: Codec(*programs),
        }
        with pytest.raises((InputError, TypeError)):
            refused.get(column, lambda: register_guide("mine")(samples))()
    elif column == "train":
        assert not list(PROGRAMS[what]().parameters())
    else:
        with pytest.raises(InputError, match="does not extend Guide"):
            register_guide("mine")(PROGRAMS[what]())
