"""The sign and scale of k-hat, by weights whose tail is known."""

import math

import pytest
import torch

from pyro_onebit.diagnostics import khat, khat_threshold


@pytest.mark.parametrize("index", [0.2, 0.5, 0.9])
def test_known_tail_index(index: float) -> None:
    """w = u^-k has P(w > y) = y^(-1/k)."""
    torch.manual_seed(0)
    log_weights = -index * torch.rand(100_000, 3, dtype=torch.float64).log()
    assert khat(log_weights).tolist() == pytest.approx([index] * 3, abs=0.08)
    # ArviZ takes the logarithms of the weights, not of their inverses: those are bounded by 1.
    assert float(khat(-log_weights).max()) < 0


def test_edges() -> None:
    assert torch.isnan(khat(torch.randn(99, 2))).all()
    # The exact posterior's weights are equal but for rounding, of which a tail's shape would say nothing.
    rounding = 1e-15 * torch.arange(1000.0, dtype=torch.float64)[:, None]
    for equal in (torch.zeros(1000, 2), rounding):
        assert (khat(equal) == -math.inf).all()
    before = torch.randn(200, 2)
    after = before.clone()
    khat(after)
    assert torch.equal(before, after)


def test_threshold() -> None:
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(10**6) == 0.7
    assert khat_threshold(1) == -math.inf
