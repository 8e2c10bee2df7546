"""A run as ArviZ data: what it holds, that it survives the disk, and that ArviZ can use it."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import FixedGuide, deviation, linear_model

from pyro_onebit import Config, OneBitData, Run, exact, to_inference_data
from pyro_onebit.studies import write_inference_data

GROUPS = {
    "posterior",
    "prior",
    "posterior_predictive",
    "observed_data",
    "sample_stats",
    "constant_data",
    "training_history",
}


def names_of(data: Any) -> set[str]:
    """The groups' names, by ArviZ of version 0 and 1."""
    groups = data.groups() if callable(data.groups) else data.groups
    return {group.strip("/") for group in groups} - {""}


@pytest.mark.parametrize(("layers", "ndims"), [(2, 5), (1, 1000)])
def test_groups_and_values(trained: Callable[..., Run], solved: Callable, layers: int, ndims: int) -> None:
    run = trained(layers, ndims)
    assert run.truth is None
    state = torch.random.get_rng_state()
    data = to_inference_data(run, draws=500)
    assert torch.equal(state, torch.random.get_rng_state())
    assert names_of(data) == GROUPS
    names = [f"z{i + 1}" for i in range(layers)]
    for name in names:
        assert data.posterior[name].dims == ("chain", "draw", "codeword")
        assert data.prior[name].dims == ("chain", "draw")
    assert data.posterior.codeword.values.tolist() == [0, 1]
    assert data.sample_stats.log_weight.shape == data.sample_stats.log_p_x_given_z.shape == (1, 500, 2)
    assert data.observed_data.x.values.tolist() == [[0] * min(ndims, 100), [1] * min(ndims, 100)]
    assert data.constant_data.log_evidence.values == pytest.approx(solved(layers, ndims)[0].log_evidence.numpy())
    assert data.training_history.loss.values == pytest.approx(run.history["loss"])
    assert data.attrs["inference_library"] == "pyro_onebit"
    assert json.loads(data.attrs["config"])["ndims"] == ndims
    check_weights(data, solved(layers, ndims)[1].law)


def check_weights(data: Any, law: exact.WeightLaw) -> None:
    """The weights follow their exact law, whose mean is the evidence.

    A trained guide's weights have a tail so heavy that their variance may be infinite: then no number of draws has a
    mean that can be relied on, nor a standard error. That of the weights cut off at ten times the evidence has both.
    """
    assert torch.allclose(law.limit(0.0), law.log_evidence, atol=1e-7, rtol=0)
    log_w = torch.from_numpy(data.sample_stats.log_weight.values[0]).double()
    ratio = (log_w - law.log_evidence).clamp_max(math.log(10)).exp()
    for codeword in (0, 1):
        atoms, mass = law.log_ratio[codeword].clamp_max(math.log(10)).exp(), law.q[codeword]
        error = deviation(atoms, len(ratio), mass)
        assert abs(float(ratio[:, codeword].mean() - mass @ atoms)) < error


def constructed(slope: float) -> Run:
    """A run whose weights and likelihoods have a known shape: q nearly as wide as the prior, a linear decoder."""
    model, guide, data = linear_model(5, slope), FixedGuide(0.6, 0.9), OneBitData(5)
    run = Run(model, guide, data, Config(ndims=5), Config(ndims=5).recipe, history={"loss": [1.0]})
    run.judge()
    return run


def test_the_weights_mean_is_the_evidence() -> None:
    """Of weights that are bounded, or nearly so."""
    run = constructed(3.0)
    joint = exact.solve_joint(run.model, run.guide, run.data, run.truth)
    data = to_inference_data(run, draws=20_000)
    check_weights(data, joint.law)
    weight = np.exp(data.sample_stats.log_weight.values[0].astype(float))
    for codeword in (0, 1):
        atoms = (joint.law.log_ratio + joint.law.log_evidence[:, None])[codeword].exp()
        error = deviation(atoms, len(weight), joint.law.q[codeword])
        evidence = float(run.truth.log_evidence[codeword].exp())
        assert abs(weight[:, codeword].mean() - evidence) < error < 0.05 * evidence


@pytest.fixture(scope="module")
def fresh(trained: Callable[..., Run]) -> Any:
    return to_inference_data(trained(2, 5))


def test_reopened_from_disk(trained: Callable[..., Run], fresh: Any, tmp_path: Path) -> None:
    write_inference_data(trained(2, 5), tmp_path / "posterior.nc")
    reopened = az.from_netcdf(str(tmp_path / "posterior.nc"))
    assert names_of(reopened) == GROUPS
    for group in GROUPS:
        for name, values in fresh[group].items():
            assert np.array_equal(values, reopened[group][name]), (group, name)
    assert reopened.attrs["config"] == fresh.attrs["config"]


@pytest.fixture
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.usefixtures("_closed_figures")
@pytest.mark.filterwarnings("ignore::matplotlib.MatplotlibDeprecationWarning")  # by ArviZ, of matplotlib 3.11
def test_arviz_summary_and_plots(fresh: Any) -> None:
    summary = az.summary(fresh, kind="stats")
    assert list(summary.index) == ["z1[0]", "z1[1]", "z2[0]", "z2[1]"]
    az.summary(fresh)
    if hasattr(az, "plot_ecdf"):  # before version 1
        az.plot_density(fresh)
        az.plot_ecdf(fresh.posterior["z2"].sel(codeword=1).values.ravel(), eval_points=np.linspace(-4, 4, 100))
    else:
        az.plot_dist(fresh)
        az.plot_dist(fresh, kind="ecdf")


def test_arviz_computes_nothing_that_misleads() -> None:
    """From a likelihood given each datum's own latents it would."""
    data = to_inference_data(constructed(3.0), draws=10)
    for compute in (az.loo, lambda data: az.compare({"a": data, "b": data})):
        with pytest.raises(TypeError, match=r"log likelihood not found|ELPD computation|compute ELPD"):
            compute(data)
