import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_onebit import Config, build, exact
from pyro_onebit.training import LatticeNoise


def lattice_loss(config: Config, particles: int, width: float, seed: int, wide: int = 1) -> float:
    model, guide, data = build(config)
    torch.manual_seed(seed)
    with torch.no_grad(), LatticeNoise(particles, data.probs, width, wide):
        return Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, data.codewords)


@pytest.mark.parametrize("width", [1.0, 1.5])
@pytest.mark.parametrize(("layers", "prob"), [(1, 0.5), (1, 0.2), (2, 0.2)])
def test_the_weighted_elbo_is_the_exact_loss(layers: int, prob: float, width: float) -> None:
    # The default two-layer start is heavy-tailed in z2; its loss would need far more particles.
    config = Config(ndims=5, layers=layers, prob=prob, preset="reference" if layers == 2 else "default")
    assert lattice_loss(config, 4096, width, 0) == pytest.approx(exact.evaluate(*build(config))["loss"], rel=2e-3)


def test_wide_noise_quiets_what_is_rare_and_large() -> None:
    """At many dimensions the loss hangs on a reconstruction that fails standard deviations out."""

    def run_all(width: float) -> float:
        config = Config(ndims=1000, layers=1)
        return float(torch.tensor([lattice_loss(config, 64, width, seed) for seed in range(30)]).std())

    assert run_all(2.5) < 0.5 * run_all(1.0)


@pytest.mark.parametrize("guide", ["two_layer", "two_layer_skip", "top_down", "mean_field"])
@pytest.mark.parametrize("wide", [1, 2])
def test_every_site_has_the_weight_of_all_wide_latents(guide: str, wide: int) -> None:
    config = Config(ndims=5, layers=2, guide=guide, prob=0.2, preset="reference")
    assert lattice_loss(config, 8192, 1.5, 0, wide) == pytest.approx(exact.evaluate(*build(config))["loss"], rel=2e-3)
