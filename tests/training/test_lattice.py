import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_onebit import GUIDES, Config, build, exact
from pyro_onebit.training import LatticeNoise


def lattice_loss(config: Config, particles: int, width: float, seed: int, wide: int = 1) -> float:
    model, guide, data = build(config)
    torch.manual_seed(seed)
    with torch.no_grad(), LatticeNoise(particles, data.probs, width, wide):
        return Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, data.codewords)


@pytest.mark.parametrize(
    ("guide", "prob"),
    [("gaussian", 0.5), ("gaussian", 0.2), *((name, 0.2) for name, guide in GUIDES.items() if guide.layers == 2)],
)
def test_the_weighted_elbo_is_the_exact_loss(guide: str, prob: float) -> None:
    """Every site has the weight of all wide latents."""
    layers = GUIDES[guide].layers
    # The default two-layer start is heavy-tailed in z2; its loss would need far more particles.
    preset = "reference" if layers == 2 else "default"
    config = Config(ndims=5, layers=layers, guide=guide, prob=prob, preset=preset)
    loss = exact.evaluate(*build(config))["loss"]
    for wide, width in ((1, 1.0), *((wide, 1.5) for wide in range(1, layers + 1))):
        assert lattice_loss(config, 8192, width, 0, wide) == pytest.approx(loss, rel=2e-3)


def test_wide_noise_quiets_what_is_rare_and_large() -> None:
    """At many dimensions the loss hangs on a reconstruction that fails standard deviations out."""

    def run_all(width: float) -> float:
        config = Config(ndims=1000, layers=1)
        return float(torch.tensor([lattice_loss(config, 64, width, seed) for seed in range(30)]).std())

    assert run_all(2.5) < 0.5 * run_all(1.0)
