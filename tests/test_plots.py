"""Figures carry the numbers they are said to carry."""

import dataclasses
import math
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import SEED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_onebit import Config, InputError, Run, build, exact, fit
from pyro_onebit.data import ideal_threshold
from pyro_onebit.plots import (
    FLOOR,
    aggregate_figure,
    loss_figure,
    posterior_figure,
    save,
    save_study_figures,
)
from pyro_onebit.quadrature import Grid

CASES = [(1, 0.5), (2, 0.5), (1, 0.3), (2, 0.3)]
PNG = b"\x89PNG\r\n\x1a\n"


@cache
def solved(layers: int, prob: float = 0.5, ndims: int = 5) -> tuple[Run, exact.Truth]:
    config = Config(ndims=ndims, layers=layers, prob=prob, steps=20, seed=SEED)
    run = fit(*build(config), config)
    return run, exact.solve(run.model, run.guide, run.data)


@pytest.fixture(autouse=True)
def no_global_figures():
    yield
    assert plt.get_fignums() == []


def lines(axes: Axes, label: str) -> list[Line2D]:
    found = [line for line in axes.get_lines() if str(line.get_label()).startswith(label)]
    assert found, f"no line {label!r} among {[line.get_label() for line in axes.get_lines()]}"
    return found


def xy(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def row(layers: int, ndims: int, loss: float, recon_per_dim: float, seed: int = 0, prob: float = 0.5) -> dict:
    entropy = -prob * math.log(prob) - (1 - prob) * math.log(1 - prob)
    names = ("layers", "ndims", "seed", "prob", "loss", "recon_per_dim", "entropy")
    return dict(zip(names, (layers, ndims, seed, prob, loss, recon_per_dim, entropy), strict=True))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_loss_figure_draws_every_seed_and_joins_the_medians():
    rows = [row(1, 5, loss, 0.01 * loss, seed) for seed, loss in enumerate((1.3, 1.1, 1.2))]
    rows += [row(1, 6, 1.4, 0.005), row(2, 6, 0.8, 1e-4)]
    recon, loss = loss_figure(rows).axes
    x, y = xy(lines(loss, "one layer")[0])
    assert x.tolist() == [5, 6]
    assert y.tolist() == [1.2, 1.4]
    assert xy(lines(recon, "one layer")[0])[1] == pytest.approx([0.012, 0.005])
    markers = [line for line in loss.get_lines() if line.get_marker() == "o"]
    assert sorted(np.concatenate([xy(line)[1] for line in markers])) == [0.8, 1.1, 1.2, 1.3, 1.4]
    assert lines(loss, "two layers")[0].get_color() != lines(loss, "one layer")[0].get_color()


@pytest.mark.parametrize("prob", [0.5, 0.3])
def test_loss_figure_draws_the_optimum_and_the_entropy(prob: float):
    figure = loss_figure([row(1, 5, 1.4, 0.05, prob=prob)])
    recon, loss = figure.axes
    [line] = lines(loss, "optimum")
    x, y = xy(line)
    assert {4, 5, 6} <= set(x)
    assert y == pytest.approx([exact.optimum(int(n), prob) for n in x])
    assert (xy(lines(recon, "optimum")[0])[1] * x < y).all()
    name = r"$\ln 2$" if prob == 0.5 else "$H(0.3)$"
    for axes in figure.axes:
        assert set(xy(lines(axes, name)[0])[1]) == {row(1, 5, 0, 0, prob=prob)["entropy"]}


def test_loss_figure_of_one_run_whose_reconstruction_is_perfect(tmp_path):
    figure = loss_figure([row(2, 5, 0.7, 0.0)])
    recon, _ = figure.axes
    assert recon.get_yscale() == "log"
    assert xy(lines(recon, "two layers")[0])[1] == [FLOOR]
    assert "one layer" not in legend(figure)
    save(figure, tmp_path / "figure.png")


def test_loss_figure_draws_what_was_published_of_the_same_models():
    published = [row(layers, ndims, 1.0 + ndims, 0.1) for layers in (1, 2) for ndims in (4, 5)]
    figure = loss_figure([row(1, 5, 1.2, 0.03)], published)
    x, y = xy(lines(figure.axes[1], "one layer, as published")[0])
    assert (x.tolist(), y.tolist()) == ([5], [6.0])
    assert not any(label.startswith("two layers") for label in legend(figure))


@pytest.mark.parametrize("rows", [[], [row(1, 5, 1.2, 0.03), row(1, 5, 1.1, 0.02, prob=0.3)]])
def test_loss_figure_refuses_rows_it_cannot_draw_together(rows: list):
    with pytest.raises(InputError, match="prob"):
        loss_figure(rows)


def test_aggregate_figure_has_a_panel_a_model_and_a_colour_a_size():
    pairs = [solved(2), solved(1, ndims=6), solved(1)]
    figure = aggregate_figure(pairs)
    one, two = figure.axes
    assert (one.get_xlabel(), two.get_xlabel()) == ("$z_1$", "$z_2$")
    assert len(lines(one, "$q(z)$")) == 2
    assert len(lines(two, "$q(z)$")) == 1
    assert lines(one, "$q(z)$, $n = 5$")[0].get_color() is not lines(one, "$q(z)$, $n = 6$")[0].get_color()
    assert np.array_equal(lines(one, "$q(z)$, $n = 5$")[0].get_color(), lines(two, "$q(z)$, $n = 5$")[0].get_color())
    assert legend(figure) == ["$q(z)$, $n = 5$", "$q(z)$, $n = 6$", "$p(z)$"]


@pytest.mark.parametrize(("layers", "prob"), CASES)
def test_aggregate_figure_draws_the_quadrature_density(layers: int, prob: float):
    run, truth = solved(layers, prob)
    [axes] = aggregate_figure([(run, truth)]).axes
    z, density = xy(lines(axes, "$q(z)$")[0])
    assert density == pytest.approx(truth.log_aggregate.exp().numpy())
    assert density @ truth.weights.numpy() == pytest.approx(1.0, abs=1e-6)
    assert np.trapezoid(density, z) == pytest.approx(1.0, abs=1e-2)
    prior = xy(lines(axes, "$p(z)$")[0])[1]
    assert prior @ truth.weights.numpy() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("panels", [(1, 2), (2, 1)])
def test_no_density_is_cut_off_at_the_top(panels: tuple[int, int]):
    figures = [aggregate_figure([solved(layers) for layers in panels])]
    figures += [posterior_figure(*solved(layers, 0.3)) for layers in panels]
    for axes in (axes for figure in figures for axes in figure.axes):
        assert axes.get_ylim()[0] == 0
        low, high = axes.get_xlim()
        for x, y in map(xy, axes.get_lines()):
            assert y[(low < x) & (x < high)].max() < axes.get_ylim()[1]


def test_aggregate_figure_needs_a_run():
    with pytest.raises(InputError, match="at least one"):
        aggregate_figure([])


@pytest.mark.parametrize(("layers", "prob"), CASES)
def test_posterior_figure_draws_both_posteriors(layers: int, prob: float):
    run, truth = solved(layers, prob)
    [axes] = posterior_figure(run, truth).axes
    exact_lines = lines(axes, "exact")
    assert len(exact_lines) == 2
    for codeword in (0, 1):
        [q] = lines(axes, rf"$q(z\,|\,x{{=}}\mathbf{{{codeword}}})$")
        assert xy(q)[1] == pytest.approx(truth.log_q[codeword].exp().numpy())
        assert xy(exact_lines[codeword])[1] == pytest.approx(truth.log_posterior[codeword].exp().numpy())
    assert axes.get_title() == f"{'one layer' if layers == 1 else 'two layers'}, $n = 5$"


def mirrored(truth: exact.Truth) -> exact.Truth:
    """The same run with z turned around."""
    return dataclasses.replace(
        truth,
        grid=Grid(-truth.grid.edges.flip(-1)),
        log_prior=truth.log_prior.flip(-1),
        log_likelihood=truth.log_likelihood.flip(-1),
        log_q=truth.log_q.flip(-1),
    )


@pytest.mark.parametrize(("layers", "prob"), CASES)
@pytest.mark.parametrize("mirror", [False, True])
def test_truncated_gaussians_are_densities_on_their_codewords_side(layers: int, prob: float, mirror: bool):
    run, truth = solved(layers, prob)
    truth = mirrored(truth) if mirror else truth
    [axes] = posterior_figure(run, truth).axes
    q_mean = truth.under_q(truth.z)
    cuts, means = [], []
    for x, y in map(xy, lines(axes, "truncated")):
        direction = np.sign(x[-1] - x[0])
        assert direction * np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)
        means.append(direction * np.trapezoid(x * y, x))
        cuts.append(x[0])
    assert cuts[0] == cuts[1]
    assert abs(cuts[0]) == pytest.approx(abs(ideal_threshold(prob)))
    assert (means[1] > means[0]) == bool(q_mean[1] > q_mean[0])
    # Mixed in the codewords' shares they are the prior again, whose mean is 0.
    assert (1 - prob) * means[0] + prob * means[1] == pytest.approx(0.0, abs=1e-3)


def test_posterior_figure_where_the_latent_is_not_used():
    grid = Grid(torch.linspace(-8, 8, 81, dtype=torch.float64))
    z = grid.nodes
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    probs = torch.tensor([0.5, 0.5], dtype=torch.float64)
    flat = torch.full((2, len(z)), math.log(0.5), dtype=torch.float64)
    truth = exact.Truth(grid, log_prior, flat, log_prior.expand(2, -1), probs, (grid,), {})
    run, _ = solved(1)
    [axes] = posterior_figure(run, truth).axes
    prior = xy(lines(axes, "$p(z)$")[0])[1]
    for label in ("$q(z)$", r"$q(z\,|\,x", "exact"):
        for line in lines(axes, label):
            assert xy(line)[1] == pytest.approx(prior)


def test_a_rare_codewords_threshold_is_shown():
    run, truth = solved(1, 1e-5)
    [axes] = posterior_figure(run, truth).axes
    assert axes.get_xlim()[1] > ideal_threshold(1e-5) > 4


def test_save_replaces_a_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "made" / "figure.png"
    for _ in range(2):
        save(posterior_figure(*solved(1)), path)
    assert path.read_bytes().startswith(PNG)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def test_study_figures_show_the_largest_size(tmp_path):
    cells = [solved(1, ndims=6), solved(1), solved(2)]
    paths = save_study_figures([run.metrics for run, _ in cells], cells, tmp_path)
    assert [path.name for path in paths] == [
        "loss.png",
        "aggregate.png",
        "posterior-layers1-ndims6.png",
        "posterior-layers2-ndims5.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    assert save_study_figures([], [], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
