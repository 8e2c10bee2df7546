"""What is left out of a mesh of two latents makes no difference, nor does a distribution's part stand for another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_onebit import OneBitData, exact
from pyro_onebit.programs import Conditional, mesh

DATA = OneBitData(3)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("z2", dist.Normal(x.new_zeros(len(x)), 1.0))
        low = pyro.sample("z1", dist.Normal(3.0 * top.tanh(), 0.05 + 0.1 * top.square()))
        pyro.sample("x", dist.Bernoulli(logits=4.0 * low[..., None].expand(*low.shape, 3)).to_event(1), obs=x)


def mixed(x: Tensor) -> None:
    """Upwards, through a mixture with a narrow part."""
    with pyro.plate("data", len(x)):
        low = pyro.sample("z1", dist.Normal(2.0 - 4.0 * x[:, 0], 0.5))
        loc = torch.stack([0.4 * low, 0.4 * low + 1.0], -1)
        parts = dist.Normal(loc, low.new_tensor([0.5, 0.01]))
        pyro.sample("z2", dist.MixtureSameFamily(dist.Categorical(low.new_tensor([0.7, 0.3])), parts))


def heavy(x: Tensor) -> None:
    """Downwards, with tails that reach far beyond the prior's."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("z2", dist.Normal(0.6 - 1.2 * x[:, 0], 0.4))
        pyro.sample("z1", dist.StudentT(9.0, 3.0 * top.tanh(), 0.2))


@pytest.mark.parametrize("guide", [mixed, heavy])
def test_what_is_left_out_makes_no_difference(guide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some = exact.evaluate(model, guide, DATA)
    monkeypatch.setattr(mesh, "_FAINT_SHARE", -math.inf)
    monkeypatch.setattr(mesh, "_FAINT", -math.inf)
    assert some == pytest.approx(exact.evaluate(model, guide, DATA), abs=1e-9)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda loc: dist.Normal(loc, 1.0 + loc.square()),
        lambda loc: dist.Normal(loc[..., None], 0.5).to_event(1),
        lambda loc: dist.StudentT(3.0, loc, 2.0),
        lambda loc: dist.TransformedDistribution(dist.Normal(loc, 0.3), [dist.transforms.ExpTransform()]),
    ],
)
def test_a_conditional_at_some_of_its_conditions(make: Callable[[Tensor], Any], flat: bool) -> None:
    loc = torch.linspace(-2.0, 2.0, 14, dtype=torch.float64).reshape(7, 2)
    fn = make(loc.flatten() if flat else loc)
    whole = Conditional([fn], 7, len(fn.event_shape), flat=flat)
    nodes, rows = torch.linspace(0.1, 3.0, 5, dtype=torch.float64), torch.tensor([5, 0, 6])
    assert torch.equal(whole.only(rows).log_prob(nodes), whole.log_prob(nodes)[:, rows])
