"""What other libraries make, judged as it is: distributions, densities, automatic guides."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.contrib.zuko import ZukoToPyro
from scipy.stats import norm
from torch import Tensor, nn

from pyro_onebit import Config, DensityGuide, OneBitData, OneLayerGuide, bounds, build, exact, fit, register_guide
from pyro_onebit.distributions import per_row, sample_from_noise

DATA = OneBitData(3, 0.3)
ROWS = torch.Size((2,))
LOC, SCALE = torch.tensor([-0.7, 0.9]), torch.tensor([0.5, 0.4])


def side(x: Tensor) -> Tensor:
    return LOC.to(x.dtype)[x[..., 0].long()]


class FromDistribution(OneLayerGuide):
    """Whose q(z1|x) a function of x makes."""

    def __init__(self, make) -> None:
        super().__init__()
        self._make = make

    def q_z1(self, x: Tensor):
        return self._make(x)


#: N(±, 0.5) as each library writes it, with the event dimension and without.
SAME = {
    "pyro, an event": lambda x: dist.Normal(side(x)[:, None], 0.5).to_event(1),
    "pyro, no event": lambda x: dist.Normal(side(x), 0.5),
    "pyro, a column": lambda x: dist.Normal(side(x)[:, None], 0.5),
    "torch, an event": lambda x: torch.distributions.Independent(torch.distributions.Normal(side(x)[:, None], 0.5), 1),
    "torch, no event": lambda x: torch.distributions.Normal(side(x), 0.5),
    "torch, a column": lambda x: torch.distributions.Normal(side(x)[:, None], 0.5),
    "zuko": lambda x: zuko.distributions.DiagNormal(side(x)[:, None], x.new_full((len(x), 1), 0.5)),
    "zuko, wrapped by Pyro": lambda x: ZukoToPyro(
        zuko.distributions.DiagNormal(side(x)[:, None], x.new_full((1,), 0.5))
    ),
    "a density": None,
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build(Config(ndims=3, prob=0.3))[0]


@pytest.fixture(scope="module")
def want(model: nn.Module) -> tuple[float, float]:
    """The loss, and the expected bound of ten samples."""
    guide = FromDistribution(SAME["pyro, an event"])
    figures = exact.evaluate(model, guide, DATA)
    joint = exact.solve_joint(model, guide, DATA, figures.truth)
    return figures["loss"], float(joint.law.expected_bound([10])[0] @ DATA.probs)


@pytest.mark.parametrize("who", SAME)
def test_one_law_in_all_libraries(model: nn.Module, want: tuple[float, float], who: str) -> None:
    make = SAME[who]
    guide = FromDistribution(make) if make else DensityGuide(lambda z, x: norm.logpdf(z, LOC.numpy()[int(x[0])], 0.5))
    loss, expected = want
    assert exact.evaluate(model, guide, DATA)["loss"] == pytest.approx(loss, abs=1e-6)
    estimate = bounds.importance_bound(model, guide, DATA, 10, repeats=400)
    assert abs(estimate.average[0] - expected) < 6.0 * estimate.average[1]


@pytest.mark.parametrize("who", ["torch, an event", "torch, no event", "zuko"])
def test_rows_and_particles(who: str) -> None:
    """Each row of each particle is drawn by itself, with gradients, and from given noise where that is known how."""
    loc = LOC.double().requires_grad_()
    make = {
        "torch, an event": lambda: torch.distributions.Independent(torch.distributions.Normal(loc[:, None], 0.5), 1),
        "torch, no event": lambda: torch.distributions.Normal(loc, 0.5),
        "zuko": lambda: zuko.distributions.DiagNormal(loc[:, None], loc.new_full((2, 1), 0.5)),
    }[who]
    many = per_row(make(), ROWS).expand(torch.Size((1000, 2)))
    drawn = many.rsample()
    assert drawn.shape == (1000, 2, 1)
    assert len(drawn.unique()) == 2000
    assert many.log_prob(drawn).shape == (1000, 2)
    drawn.sum().backward()
    assert loc.grad.tolist() == pytest.approx([1000.0, 1000.0])
    noise = torch.randn(1000, 2, 1, dtype=loc.dtype)
    assert torch.allclose(sample_from_noise(many, noise), loc[:, None] + 0.5 * noise)


def test_a_law_that_all_rows_share() -> None:
    """A batch of one, or none, stands for all rows; each is drawn by itself."""
    for alike in (torch.distributions.Normal(0.0, 1.0), zuko.flows.NSF(1), zuko.flows.NSF(1)()):
        drawn = per_row(alike, ROWS).expand(torch.Size((50, 2))).sample()
        assert drawn.shape == (50, 2, 1)
        assert len(drawn.unique()) == 100


class ZukoGuide(OneLayerGuide):
    def __init__(self, ndims: int, prob: float, arch) -> None:
        super().__init__()
        self.q_z1 = zuko.flows.NSF(1, context=ndims, hidden_features=(8, 8))


def test_a_flow_is_trained_on_the_lattice() -> None:
    register_guide("nsf")(ZukoGuide)
    config = Config(ndims=5, guide="nsf", steps=300)
    run = fit(*build(config), config)
    assert run.metrics["loss"] < exact.optimum(5)


def test_a_density_that_is_none(model: nn.Module) -> None:
    with pytest.raises(ArithmeticError, match="integrates to"):
        exact.evaluate(model, DensityGuide(lambda z, x: norm.logpdf(z) - 0.1), DATA)


def test_a_density_is_judged_and_bounded(model: nn.Module) -> None:
    """A mixture, with a name and a shape of its own."""

    def scalar_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            logits = 3.0 * z[..., None].expand(*z.shape, x.shape[-1])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def log_prob(z: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.logaddexp(norm.logpdf(z, 2 * x[0] - 1, 0.6), norm.logpdf(z, 0.0, 1.5)) - np.log(2.0)

    def mixture(x: Tensor) -> None:
        loc = torch.stack([2 * x[:, 0] - 1, 0 * x[:, 0]], -1)
        with pyro.plate("data", len(x)):
            weights, scales = x.new_ones(len(x), 2), x.new_tensor([0.6, 1.5])
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scales)))

    given, program = DensityGuide(log_prob, "z", event_dim=0), mixture
    figures, want = (exact.evaluate(scalar_model, guide, DATA) for guide in (given, program))
    assert figures["loss"] == pytest.approx(want["loss"], abs=1e-9)
