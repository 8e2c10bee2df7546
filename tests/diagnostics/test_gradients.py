import pyro
import pytest
import torch

from pyro_onebit import Config, InputError, build
from pyro_onebit.diagnostics import gradient_noise
from pyro_onebit.diagnostics.gradients import _moments
from pyro_onebit.registry import OBJECTIVES


def start(layers: int = 1, ndims: int = 2) -> tuple:
    return build(Config(ndims=ndims, layers=layers, preset="reference"))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_a_gradient_for_model_and_guide(name: str, layers: int) -> None:
    noise = gradient_noise(*start(layers), name, 4, repeats=3)
    for part in noise.values():
        assert torch.isfinite(part.mean).all()
        assert float(part.mean.norm()) > 0
        assert part.total_variance > 0


@pytest.mark.parametrize("layers", [1, 2])
def test_doubly_reparameterised_gradients_have_the_bounds_mean(layers: int) -> None:
    repeats = 20
    plain, double = (gradient_noise(*start(layers), name, 8, rows=500, repeats=repeats) for name in ("iwae", "dreg"))
    for part in ("model", "guide"):
        error = ((plain[part].variance + double[part].variance) / repeats).sum().sqrt()
        difference = (plain[part].mean - double[part].mean).norm()
        # Parameters' errors go together: their norm is that of few numbers.
        assert float(difference / error) < 3.0
        assert float(error / plain[part].mean.norm()) < 0.1
    assert double["guide"].total_variance < plain["guide"].total_variance


def test_one_sample_of_the_bound_is_the_elbo() -> None:
    plain, bound = (gradient_noise(*start(), name, 1, repeats=2, seed=4) for name in ("elbo", "iwae"))
    stl, dreg = (gradient_noise(*start(), name, 1, repeats=2, seed=4) for name in ("stl", "dreg"))
    for a, b in ((plain, bound), (stl, dreg)):
        for part in ("model", "guide"):
            torch.testing.assert_close(a[part].mean, b[part].mean, rtol=1e-4, atol=1e-6)


def test_wake_sleep_weighs_each_row_by_itself() -> None:
    model, guide, data = start()
    x = data.rows(4)
    with pyro.get_param_store().scope():
        torch.manual_seed(0)
        bound, guide_loss = OBJECTIVES["rws"](3).loss(model, guide, x)
    torch.manual_seed(0)
    with torch.no_grad():
        q = guide.q_z1(x)
        z = q.sample((3,))
        log_q = q.log_prob(z)
        log_w = torch.distributions.Normal(0.0, 1.0).log_prob(z).squeeze(-1) + model.p_x(z).log_prob(x) - log_q
    assert float(bound) == pytest.approx(float(-log_w.exp().mean(0).log().sum()), rel=1e-5)
    assert float(guide_loss) == pytest.approx(float(-(log_w.softmax(0) * log_q).sum()), rel=1e-5)


def test_the_signal_is_estimated_without_its_noise() -> None:
    """Estimates of a known mean: the squared norm of their own mean is too large by the noise over their number."""
    torch.manual_seed(0)
    mean, count = torch.tensor([0.3, -0.4] + [0.0] * 98, dtype=torch.float64), 1600
    seen = [_moments(mean + torch.randn(count, 100, dtype=torch.float64)) for _ in range(50)]
    signals = torch.tensor([noise.signal_squared for noise in seen])
    assert float(signals.mean()) == pytest.approx(0.25, abs=4.9 * float(signals.std()) / 50**0.5)
    assert float(signals.std()) == pytest.approx(sum(noise.signal_squared_error for noise in seen) / 50, rel=0.5)
    assert all(noise.is_told for noise in seen)
    floor = sum(float(noise.mean.square().sum()) for noise in seen) / 50
    assert floor == pytest.approx(0.25 + 100 / count, rel=0.1)
    silent = _moments(torch.randn(count, 100, dtype=torch.float64))
    assert not silent.is_told
    assert seen[0].signal_to_noise == pytest.approx(0.05, rel=0.5)


def test_the_elbos_signal_to_noise_ratio_grows_as_the_root_of_the_samples() -> None:
    """Its gradient is a mean over them. At a fixed program, as K grows 16-fold, it grows fourfold."""
    few, many = (gradient_noise(*start(), "elbo", k, repeats=r)["guide"] for k, r in ((4, 1500), (64, 500)))
    assert few.is_told
    ratio = many.signal_to_noise / few.signal_to_noise
    error = few.signal_squared_error / few.signal_squared + many.signal_squared_error / many.signal_squared
    assert ratio == pytest.approx(4.0, rel=2.5 * error + 0.1)


def test_nothing_is_left_behind() -> None:
    model, guide, data = start()
    before = torch.get_rng_state()
    gradient_noise(model, guide, data, "iwae", 2, repeats=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in [*model.parameters(), *guide.parameters()])


def test_repeats_are_checked() -> None:
    with pytest.raises(InputError, match="repeats is 1"):
        gradient_noise(*start(), "elbo", 2, repeats=1)
