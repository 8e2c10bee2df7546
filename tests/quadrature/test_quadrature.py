import math

import pytest
import torch

from pyro_onebit.quadrature import Grid, refine

EDGES = torch.linspace(-10, 10, 5, dtype=torch.float64)


def integrate(grid: Grid, values: torch.Tensor) -> float:
    return float(grid.weights @ values)


def test_polynomials_are_exact_and_halving_doubles_the_nodes() -> None:
    grid = Grid(torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64))
    assert integrate(grid, grid.nodes**23) == pytest.approx(1 / 24, rel=1e-13)
    assert len(grid.halved().nodes) == 2 * len(grid.nodes)
    assert (torch.diff(grid.halved().nodes) > 0).all()


def test_cumulative_integrals_at_the_nodes() -> None:
    grid = Grid(torch.tensor([-3.0, -1.0, 0.5, 4.0], dtype=torch.float64))
    values = torch.stack([grid.nodes**11, torch.cos(grid.nodes)])
    exact = torch.stack([(grid.nodes**12 - 3.0**12) / 12, torch.sin(grid.nodes) + math.sin(3.0)])
    assert torch.allclose(grid.cumulative(values), exact, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("width", [1.0, 1e-2, 1e-4])
def test_a_narrow_peak_is_resolved_where_it_is(width: float) -> None:
    def peak(z: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * ((z - 0.3) / width) ** 2)[:, None] / (width * math.sqrt(2 * math.pi))

    edges = (
        torch.cat([EDGES, 0.3 + width * torch.tensor([-10.0, -4.0, 0.0, 4.0, 10.0], dtype=torch.float64)]).sort().values
    )
    grid = refine(peak, edges).grid
    assert integrate(grid, peak(grid.nodes)[:, 0]) == pytest.approx(1, abs=1e-8)


def test_a_jump_is_enclosed() -> None:
    grid = refine(lambda z: (z > 0.1234).to(z.dtype)[:, None], EDGES).grid
    assert integrate(grid, (grid.nodes > 0.1234).double()) == pytest.approx(10 - 0.1234, abs=1e-8)


def test_what_no_number_of_panels_resolves_is_refused() -> None:
    """An absolute tolerance is none for values of 1e100."""
    with pytest.raises(ArithmeticError, match="more than 5000 panels do not resolve"):
        refine(lambda z: 1e100 * torch.sin(1e3 * z)[:, None], EDGES)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        refine(lambda z: z.log()[:, None], EDGES)
