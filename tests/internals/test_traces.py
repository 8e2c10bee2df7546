"""Pyro: where its ELBO objects get their traces from, and what they make of them."""

from typing import Any

import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from pyro.poutine import Trace

from pyro_onebit.internals import AdjustedTraces, OwnWakeSleep, particle_traces


def model(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", Normal(0.0, 1.0))
        pyro.sample("x", Normal(z, 1.0), obs=x)


def guide(x: torch.Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", Normal(loc, 1.0))


SETTINGS: dict[str, Any] = {"num_particles": 7, "vectorize_particles": True, "max_plate_nesting": 1}


@pytest.fixture(autouse=True)
def _own_store() -> None:
    with pyro.get_param_store().scope():
        yield


def test_vectorised_particles_are_one_pair_of_traces() -> None:
    pair = particle_traces(Trace_ELBO(**SETTINGS), model, guide, (torch.zeros(2),), {})
    for trace in pair:
        assert trace.nodes["z"]["log_prob"].shape == (7, 2)
    model_trace, guide_trace = pair
    assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]
    assert "score_parts" in guide_trace.nodes["z"]


def test_adjusted_traces_are_what_the_elbo_is_of() -> None:
    class Doubled(AdjustedTraces, Trace_ELBO):
        def adjust(self, model: Any, guide: Any, traces: tuple[Trace, Trace], args: Any, kwargs: Any):
            site = traces[0].nodes["x"]
            site["log_prob_sum"], site["log_prob"] = 2 * site["log_prob_sum"], 2 * site["log_prob"]
            return traces

    losses = []
    for kind in (Trace_ELBO, Doubled):
        torch.manual_seed(0)
        losses.append(kind(**SETTINGS).loss(model, guide, torch.ones(2)))
    torch.manual_seed(0)
    model_trace, _ = particle_traces(Trace_ELBO(**SETTINGS), model, guide, (torch.ones(2),), {})
    recon = -float(model_trace.nodes["x"]["log_prob_sum"].detach()) / 7
    assert losses[1] == pytest.approx(losses[0] + recon, rel=1e-5)


def test_own_losses_are_differentiated() -> None:
    class Own(OwnWakeSleep):
        def losses(self, model_trace: Trace, guide_trace: Trace) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(()), 3.0 * pyro.param("loc")

    loss = Own(**SETTINGS).loss_and_grads(model, guide, torch.ones(2))
    assert float(loss[1]) == pytest.approx(1.5)
    assert float(pyro.param("loc").grad) == pytest.approx(3.0)
