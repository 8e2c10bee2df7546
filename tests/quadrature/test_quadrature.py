import math

import pytest
import torch
from scipy import stats

from pyro_onebit.quadrature import Grid, merge, refine, tail_of

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
    with pytest.raises(ArithmeticError, match="more than 5000 panels do not resolve"):
        refine(lambda z: torch.sin(1e6 * z)[:, None], EDGES)


def test_large_values_have_a_relative_tolerance() -> None:
    def f(z: torch.Tensor) -> torch.Tensor:
        return 1e100 * (-0.5 * (z / 0.3).square()).exp()

    grid = refine(lambda z: f(z)[:, None], EDGES).grid
    assert integrate(grid, f(grid.nodes)) == pytest.approx(math.sqrt(2 * math.pi) * 0.3 * 1e100, rel=1e-9)


def test_merged_panels_integrate_to_the_same() -> None:
    """What a first look put too close is undone, and what a narrow peak needs is kept."""

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.cos(z), (-0.5 * ((z - 0.3) / 1e-3).square()).exp()], 1)

    start = torch.cat([torch.linspace(-10, 10, 400, dtype=torch.float64), 0.3 + torch.tensor([-4e-3, 0.0, 4e-3])])
    panels = refine(f, start.sort().values)
    merged = Grid(merge(f, panels, 1e-10))
    assert len(merged.edges) < 0.2 * len(panels.edges)
    expected = [2 * math.sin(10), math.sqrt(2 * math.pi) * 1e-3]
    assert (merged.weights @ f(merged.nodes)).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.3, 1.0 - 1e-6])
def test_quantiles_and_integrals_to_a_point(share: float) -> None:
    grid = Grid(torch.linspace(-10, 10, 41, dtype=torch.float64))
    density = torch.distributions.Normal(0.0, 1.0).log_prob(grid.nodes).exp()
    z = torch.tensor([max(-10.0, stats.norm.ppf(share))], dtype=torch.float64)
    assert float(grid.integral_to(density, z)) == pytest.approx(share, abs=1e-13)
    if share:
        assert float(grid.quantiles(density, torch.tensor([share], dtype=torch.float64))) == pytest.approx(float(z))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        refine(lambda z: z.log()[:, None], EDGES)


@pytest.mark.parametrize("end", [1.0, -1.0])
def test_what_falls_ever_faster_has_no_more_beyond_than_its_value_over_its_rate(end: float) -> None:
    grid = Grid((end * torch.linspace(-30.0, 5.0, 71, dtype=torch.float64)).sort().values)
    density = torch.from_numpy(stats.norm.pdf(grid.nodes.numpy()))
    tail = tail_of(grid, torch.stack([density, 1.0 + 0.0 * density]) * grid.weights)
    assert tail.beyond.tolist() == [0.0, 0.0]
    assert 1.0 < float(tail.error[0]) / stats.norm.sf(5.0) < 1.2
    # What does not fall may go on as far as the grid is wide, at both ends.
    assert float(tail.error[1]) == pytest.approx(35.0, rel=0.02)


def test_what_falls_more_slowly_than_before_is_not_known_to_end() -> None:
    grid = Grid(torch.linspace(0.0, 20.0, 41, dtype=torch.float64))
    falling = torch.exp(-(grid.nodes**0.5) * 4.0) * grid.weights
    error = float(tail_of(grid, falling[None]).error)
    assert error >= float(torch.exp(torch.tensor(-4.0 * 20.0**0.5))) * 9.0
