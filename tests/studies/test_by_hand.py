"""Runs of programs that were trained by hand: kept, judged, reported and coded with like any other."""

import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_onebit import (
    Config,
    GaussianGuide,
    InputError,
    OneBitData,
    OneLayerModel,
    Run,
    build,
    exact,
    fit,
    load_run,
    register_guide,
    save_run,
    to_inference_data,
)
from pyro_onebit.coding import Codec, pack, unpack
from pyro_onebit.plots import comparison_drawings, save_drawings
from pyro_onebit.reporting import write_report
from pyro_onebit.studies import compare_runs

DATA = OneBitData(3, 0.3)


@pytest.fixture(autouse=True)
def _own_store():
    with pyro.get_param_store().scope():
        yield


def linear(x: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(6.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=slope * z[..., None].expand(*z.shape, x.shape[-1])).to_event(1), obs=x)


def gaussian(x: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(2.0 * x[:, 0] - 1.0, scale))


class Plain(PyroModule):
    """As Pyro's users write one, registered nowhere."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.scale = PyroParam(torch.tensor(scale), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x[:, :1]).squeeze(-1), self.scale))


def test_metrics_say_what_is_known_and_no_more() -> None:
    figures = exact.evaluate(linear, gaussian, DATA)
    run = Run.of(linear, gaussian, DATA, seed=4, history={"loss": [2.0, 1.5]})
    known = {"layers": 1, "ndims": 3, "prob": 0.3, "model": "linear", "guide": "gaussian", "seed": 4}
    assert {name: run.metrics[name] for name in known} == known
    assert run.metrics["loss"] == pytest.approx(figures["loss"], rel=1e-7)
    assert (run.metrics["kl1"], run.metrics["kl2"]) == pytest.approx((figures["kl_z"], 0.0), rel=1e-7)
    assert all(run.metrics[name] is None for name in ("objective", "steps", "seconds", "optimum"))
    assert run.recipe is None


def test_a_function_s_parameters_are_kept_from_pyro_s_store() -> None:
    run = Run.of(linear, gaussian, DATA)
    pyro.get_param_store()["scale"] = torch.tensor(3.0)
    before = run.metrics["loss"]
    run.judge()
    assert run.metrics["loss"] == before != exact.evaluate(linear, gaussian, DATA)["loss"]


@pytest.mark.parametrize("kind", ["functions", "modules", "a module within a function"])
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    """Into programs that are new, as in another process."""

    def programs(scale: float):
        net = nn.Linear(1, 1)

        def closes_over_a_net(x: Tensor) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x[:, :1]).squeeze(-1), scale))

        return {"functions": gaussian, "modules": Plain(scale)}.get(kind, closes_over_a_net)

    torch.manual_seed(0)
    pyro.param("slope", torch.tensor(4.0))
    pyro.param("scale", torch.tensor(0.7), constraint=constraints.positive)
    run = Run.of(linear, programs(0.7), DATA)
    save_run(run, str(tmp_path))
    pyro.clear_param_store()
    loaded = load_run(str(tmp_path), model=linear, guide=programs(0.7))
    assert not list(pyro.get_param_store())
    assert loaded.metrics == run.metrics
    assert loaded.config == run.config
    assert math.isnan(loaded.seconds)
    assert loaded.judge()["loss"] == run.metrics["loss"]
    with pytest.raises(InputError, match=r"model 'linear' is not registered here; import .*, or give it: load_run"):
        load_run(tmp_path, guide=gaussian)
    with pytest.raises(InputError, match="damaged, or not of this run"):
        load_run(tmp_path, model=linear, guide=nn.Bilinear(1, 1, 1))


def test_an_automatic_guide(tmp_path: Path) -> None:
    """A new one has no parameters before it is run."""
    run = Run.of(linear, AutoNormal(linear), DATA)
    save_run(run, tmp_path)
    loaded = load_run(tmp_path, model=linear, guide=AutoNormal(linear))
    assert loaded.judge()["loss"] == run.metrics["loss"]


def test_registered_programs_are_loaded_by_name(tmp_path: Path) -> None:
    @register_guide("mine")
    class Mine(GaussianGuide):
        pass

    torch.manual_seed(0)
    run = Run.of(OneLayerModel(3, 0.3), Mine(3, 0.3), DATA)
    save_run(run, tmp_path)
    loaded = load_run(tmp_path)
    assert (loaded.config.model, loaded.config.guide) == ("one_layer", "mine")
    assert type(loaded.guide) is Mine
    assert loaded.judge()["loss"] == run.metrics["loss"]


def test_reported_coded_and_handed_to_arviz(tmp_path: Path) -> None:
    run = Run.of(linear, gaussian, DATA, history={"loss": [2.0, 1.5]})
    save_run(run, tmp_path)
    page = write_report(str(tmp_path)).read_text()
    assert "gaussian" in page
    assert "The loss during training" in page
    container, _ = pack(Codec(run.model, run.guide, run.data), b"one bit", quiet=True)
    assert unpack(run.model, run.guide, run.data, container, quiet=True)[0] == b"one bit"
    data = to_inference_data(run, draws=10)
    assert data.posterior["z"].shape == (1, 10, 2)


def test_side_by_side_with_trained_ones(tmp_path: Path) -> None:
    config = Config(ndims=3, prob=0.3, steps=3)
    runs = [Run.of(linear, gaussian, DATA, seed=1), fit(*build(config), config)]
    comparison = compare_runs(runs, str(tmp_path))
    assert comparison.table["guide"].tolist() == ["gaussian", "gaussian"]
    assert comparison.table["model"].tolist() == ["linear", "one_layer"]
    assert comparison.table["loss"].tolist() == [run.metrics["loss"] for run in runs]
    assert comparison.table["steps"].isna().tolist() == [True, False]
    assert len(save_drawings(comparison_drawings(comparison), tmp_path / "figures")) == 2
    assert "linear" in write_report(tmp_path).read_text()
