"""A run as ArviZ data: what it holds, that it survives the disk, and that ArviZ can use it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pyro_onebit import Run, to_inference_data
from pyro_onebit.inference_data import write_inference_data

GROUPS = {
    "posterior",
    "prior",
    "posterior_predictive",
    "log_likelihood",
    "observed_data",
    "sample_stats",
    "constant_data",
    "training_history",
}


@pytest.mark.parametrize(("layers", "ndims"), [(1, 5), (2, 5), (2, 1000)])
def test_groups_and_values(trained: Callable[..., Run], layers: int, ndims: int) -> None:
    run = trained(layers, ndims)
    run.judge()
    state = torch.random.get_rng_state()
    data = to_inference_data(run, draws=500)
    assert torch.equal(state, torch.random.get_rng_state())
    assert set(data.groups()) == GROUPS
    names = [f"z{i + 1}" for i in range(layers)]
    for name in names:
        assert data.posterior[name].dims == ("chain", "draw", "codeword")
        assert data.prior[name].dims == ("chain", "draw")
    assert data.posterior.codeword.values.tolist() == [0, 1]
    assert data.sample_stats.log_weight.shape == data.log_likelihood.x.shape == (1, 500, 2)
    assert data.observed_data.x.values.tolist() == [[0] * min(ndims, 100), [1] * min(ndims, 100)]
    assert data.constant_data.log_evidence.values == pytest.approx(run.truth.log_evidence.numpy())
    assert data.training_history.loss.values == pytest.approx(run.history["loss"])
    assert data.attrs["inference_library"] == "pyro_onebit"
    assert json.loads(data.attrs["config"])["ndims"] == ndims
    # The weights' mean is the evidence.
    weights = np.exp(data.sample_stats.log_weight.values[0].astype(float))
    error = weights.std(0) / 500**0.5
    assert (np.abs(weights.mean(0) - np.exp(run.truth.log_evidence.numpy())) < 4.5 * error).all()


def test_reopened_from_disk(trained: Callable[..., Run], tmp_path: Path) -> None:
    run = trained(2, 5)
    write_inference_data(run, tmp_path / "posterior.nc")
    reopened, fresh = az.from_netcdf(str(tmp_path / "posterior.nc")), to_inference_data(run)
    assert set(reopened.groups()) == GROUPS
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
def test_arviz_summary_and_plots(trained: Callable[..., Run]) -> None:
    data = to_inference_data(trained(2, 5))
    summary = az.summary(data, kind="stats")
    assert list(summary.index) == ["z1[0]", "z1[1]", "z2[0]", "z2[1]"]
    az.summary(data)
    az.plot_density(data)
    az.plot_ecdf(data.posterior["z2"].sel(codeword=1).values.ravel(), eval_points=np.linspace(-4, 4, 100))
    with np.errstate(all="ignore"):  # a likelihood that is 1 to rounding has no tail to fit
        az.plot_khat(az.loo(data, pointwise=True))
