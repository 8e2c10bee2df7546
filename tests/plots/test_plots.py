"""Figures carry the numbers they are said to carry."""

import dataclasses
import math
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SEED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from pyro_onebit import Config, InputError, Run, build, exact, fit
from pyro_onebit.data import ideal_threshold
from pyro_onebit.plots import (
    FLOOR,
    aggregate_figure,
    comparison_drawings,
    loss_figure,
    posterior_figure,
    save,
    save_drawings,
    study_drawings,
)
from pyro_onebit.quadrature import Grid
from pyro_onebit.studies import ORIGINAL, Study, to_table
from pyro_onebit.training import identity_of

CASES = [(1, 0.5), (2, 0.5), (1, 0.3), (2, 0.3)]
PNG = b"\x89PNG\r\n\x1a\n"


@cache
def run_of(layers: int, prob: float = 0.5, ndims: int = 5, guide: str | None = None) -> Run:
    config = Config(ndims=ndims, layers=layers, prob=prob, guide=guide, steps=20, seed=SEED)
    return fit(*build(config), config)


@cache
def solved(layers: int, prob: float = 0.5, ndims: int = 5, guide: str | None = None) -> tuple[Config, exact.Truth]:
    run = run_of(layers, prob, ndims, guide)
    return run.config, exact.solve(run.model, run.guide, run.data)


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


def row(layers: int, ndims: int, loss: float, recon_per_dim: float, seed: int = 0, prob: float = 0.5, **more) -> dict:
    entropy = -prob * math.log(prob) - (1 - prob) * math.log(1 - prob)
    identity = identity_of(Config(ndims, layers, prob=prob, seed=seed, **more))
    return {**identity, "loss": loss, "recon_per_dim": recon_per_dim, "entropy": entropy}


def sample_sites(*rows: dict) -> Figure:
    return loss_figure(pd.DataFrame(rows))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_loss_figure_draws_every_seed_and_joins_the_medians():
    rows = [row(1, 6, loss, 0.01 * loss, seed) for seed, loss in enumerate((1.3, 1.1, 1.2))]
    rows += [row(1, 7, 1.4, 0.005), row(2, 7, 0.8, 1e-4)]
    recon, loss = sample_sites(*rows).axes
    x, y = xy(lines(loss, "one layer")[0])
    assert x.tolist() == [6, 7]
    assert y.tolist() == [1.2, 1.4]
    assert xy(lines(recon, "one layer")[0])[1] == pytest.approx([0.012, 0.005])
    markers = [line for line in loss.get_lines() if line.get_marker() == "o"]
    assert sorted(np.concatenate([xy(line)[1] for line in markers])) == [0.8, 1.1, 1.2, 1.3, 1.4]
    assert lines(loss, "two layers")[0].get_color() != lines(loss, "one layer")[0].get_color()


@pytest.mark.parametrize("prob", [0.5, 0.3])
def test_loss_figure_draws_the_optimum_and_the_entropy(prob: float):
    figure = sample_sites(row(1, 5, 1.4, 0.05, prob=prob))
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
    figure = sample_sites(row(2, 5, 0.7, 0.0))
    recon, _ = figure.axes
    assert recon.get_yscale() == "log"
    assert xy(lines(recon, "two layers")[0])[1] == [FLOOR]
    assert "one layer" not in legend(figure)
    save(figure, tmp_path / "figure.png")


def test_loss_figure_draws_what_was_published_of_the_same_cells():
    figure = sample_sites(row(1, 5, 1.2, 0.03), row(1, 6, 1.2, 0.03))
    x, y = xy(lines(figure.axes[1], "one layer, as published")[0])
    assert (x.tolist(), y.tolist()) == ([5], [ORIGINAL[1, 5][0]])
    assert not any(label.startswith("two layers") for label in legend(figure))
    assert not any("published" in label for label in legend(sample_sites(row(1, 5, 1.2, 0.03, prob=0.3))))


def test_loss_figure_does_not_mix_guides():
    rows = [
        row(1, n, loss, 0.1, guide=guide) for n in (5, 6) for guide, loss in (("gaussian", 1.1), ("truncated", 0.7))
    ]
    figure = sample_sites(*rows)
    gaussian, truncated = (lines(figure.axes[1], f"one layer, {name}")[0] for name in ("gaussian", "truncated"))
    assert xy(gaussian)[1].tolist() == [1.1, 1.1]
    assert xy(truncated)[1].tolist() == [0.7, 0.7]
    assert gaussian.get_color() != truncated.get_color()


@pytest.mark.parametrize("rows", [[], [row(1, 5, 1.2, 0.03), row(1, 5, 1.1, 0.02, prob=0.3)]])
def test_loss_figure_refuses_rows_it_cannot_draw_together(rows: list):
    with pytest.raises(InputError, match="prob"):
        loss_figure(pd.DataFrame(rows, columns=list(row(1, 5, 1.2, 0.03))))


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
    config, truth = solved(layers, prob)
    [axes] = aggregate_figure([(config, truth)]).axes
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
    config, truth = solved(layers, prob)
    [axes] = posterior_figure(config, truth).axes
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
        grid=dataclasses.replace(truth.grid, edges=-truth.grid.edges.flip(-1)),
        log_prior=truth.log_prior.flip(-1),
        log_likelihood=truth.log_likelihood.flip(-1),
        log_q=truth.log_q.flip(-1),
    )


@pytest.mark.parametrize(("layers", "prob"), CASES)
@pytest.mark.parametrize("mirror", [False, True])
def test_truncated_gaussians_are_densities_on_their_codewords_side(layers: int, prob: float, mirror: bool):
    config, truth = solved(layers, prob)
    truth = mirrored(truth) if mirror else truth
    [axes] = posterior_figure(config, truth).axes
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
    truth = exact.Truth(grid, log_prior, flat, log_prior.expand(2, -1), probs, ("z1",), (grid,), (), (), {})
    config, _ = solved(1)
    [axes] = posterior_figure(config, truth).axes
    prior = xy(lines(axes, "$p(z)$")[0])[1]
    for label in ("$q(z)$", r"$q(z\,|\,x", "exact"):
        for line in lines(axes, label):
            assert xy(line)[1] == pytest.approx(prior)


def test_a_rare_codewords_threshold_is_shown():
    config, truth = solved(1, 1e-5)
    [axes] = posterior_figure(config, truth).axes
    assert axes.get_xlim()[1] > ideal_threshold(1e-5) > 4


def test_save_replaces_a_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "made" / "figure.png"
    for _ in range(2):
        save(posterior_figure(*solved(1)), path)
    assert path.read_bytes().startswith(PNG)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def study_of(*cells: tuple) -> Study:
    runs = [run_of(*cell) for cell in cells]
    return Study(to_table([run.metrics for run in runs], "results"), {}, [solved(*cell) for cell in cells])


def test_study_figures_show_the_largest_size_of_each_family(tmp_path):
    study = study_of((1, 0.5, 6), (1, 0.5, 5), (2, 0.5, 5))
    paths, failed = save_drawings(study_drawings(study), tmp_path)
    assert not failed
    assert [path.name for path in paths] == [
        "loss.png",
        "aggregate.png",
        "posterior-layers1-ndims6.png",
        "posterior-layers2-ndims5.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    assert Image.open(paths[1]).text["Description"].startswith("The aggregate posterior")
    assert save_drawings(study_drawings(Study(study.table[:0], {}, [])), tmp_path / "none") == ([], {})
    assert not (tmp_path / "none").exists()


def test_each_guide_has_figures_of_its_own():
    study = study_of((1, 0.5, 5, "gaussian"), (1, 0.5, 5, "truncated"))
    drawings = {drawing.name: drawing.figure() for drawing in study_drawings(study)}
    assert list(drawings)[2:] == ["posterior-layers1-gaussian-ndims5", "posterior-layers1-truncated-ndims5"]
    assert [axes.get_title() for axes in drawings["aggregate"].axes] == ["one layer, gaussian", "one layer, truncated"]


def test_comparison_figures_have_a_row_and_a_marker_for_each_family():
    cells = [(1, 0.5, 5, "gaussian"), (1, 0.5, 5, "truncated")]
    metrics = [{**run_of(*cell).metrics, "gap_nats": 0.1 * (i + 1)} for i, cell in enumerate(cells)]
    comparison = Study(pd.DataFrame(metrics), {}, [solved(*cell) for cell in cells])
    drawings = {drawing.name: drawing.figure() for drawing in comparison_drawings(comparison)}
    assert [axes.get_ylabel() for axes in drawings["posteriors"].axes] == ["gaussian", "truncated"]
    [axes] = drawings["loss-seconds"].axes
    assert {line.get_label(): xy(line)[1].tolist() for line in axes.get_lines()} == {
        "gaussian": [0.1],
        "truncated": [0.2],
    }
