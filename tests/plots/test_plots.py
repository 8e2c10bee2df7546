"""Figures carry the numbers they are said to carry."""

import math
from collections.abc import Callable
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import SEED, FixedGuide
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from pyro_onebit import Config, InputError, Run, build, exact, fit
from pyro_onebit.data import ideal_threshold
from pyro_onebit.plots import (
    FLOORS,
    aggregate_figure,
    codeword_colours,
    comparison_drawings,
    comparison_figure,
    information_figure,
    loss_figure,
    posterior_figure,
    save,
    save_drawings,
    study_drawings,
)
from pyro_onebit.studies import CELL, ORIGINAL, Study, to_table
from pyro_onebit.training import identity_of

CASES = [(1, 0.3), (2, 0.5)]
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
    own = identity_of(Config(ndims, layers, prob=prob, seed=seed, **more))
    identity = {name: own[name] for name in (*CELL, "seed")}
    figures = {"loss": loss, "recon_per_dim": recon_per_dim, "entropy": entropy, "optimum": entropy}
    return {**identity, **figures, "mutual_information": entropy / 2}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_loss_figure_draws_every_seed_and_joins_the_medians():
    rows = [row(1, 6, loss, 0.01 * loss, seed) for seed, loss in enumerate((1.3, 1.1, 1.2))]
    rows += [row(1, 7, 1.4, 0.005), row(2, 7, 0.8, 1e-4)]
    above, recon = loss_figure(pd.DataFrame(rows)).axes
    entropy = math.log(2.0)
    for axes, seen, medians in (
        (above, [1.3 - entropy, 1.1 - entropy, 1.2 - entropy, 1.4 - entropy], [1.2 - entropy, 1.4 - entropy]),
        (recon, [0.013, 0.011, 0.012, 0.005], [0.012, 0.005]),
    ):
        [markers] = lines(axes, "one layer")[:1]
        assert xy(markers)[1] == pytest.approx(seen)
        joined = [line for line in axes.get_lines() if line.get_color() == markers.get_color() and line is not markers]
        assert xy(joined[0])[0].tolist() == [6, 7]
        assert xy(joined[0])[1] == pytest.approx(medians)
        assert lines(axes, "two layers")[0].get_color() != markers.get_color()
        assert lines(axes, "two layers")[0].get_marker() != markers.get_marker()
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


@pytest.mark.parametrize("prob", [0.5, 0.3])
def test_information_figure_draws_the_limit_and_the_entropy(prob: float):
    figure = information_figure(pd.DataFrame([row(1, n, 1.4, 0.05, prob=prob) for n in (1, 6)]))
    information, loss = figure.axes
    [limit] = lines(loss, "limit")
    x, y = xy(limit)
    assert x.tolist() == [1, 2, 3, 4, 5, 6]
    assert y == pytest.approx([exact.optimum(int(n), prob) for n in x])
    entropy = row(1, 5, 0, 0, prob=prob)["entropy"]
    # What the latent holds at the optimum, what is left of each dimension's entropy is its reconstruction.
    held = [entropy - exact.gaussian_optimum(int(n), prob).recon / n for n in x]
    assert xy(lines(information, "limit")[0])[1] == pytest.approx(held)
    assert held[0] == pytest.approx(0.0, abs=1e-9)
    name = r"$\ln 2$" if prob == 0.5 else "$H(0.3)$"
    for axes in figure.axes:
        assert set(xy(lines(axes, name)[0])[1]) == {entropy}


def test_ticks_are_whole_numbers():
    figure = information_figure(pd.DataFrame([row(1, n, 1.0, 0.01) for n in (1, 1000)]))
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert {"1", "10", "100", "1000"} <= set(labels)


def test_loss_figure_of_one_run_whose_reconstruction_is_perfect(tmp_path):
    figure = loss_figure(pd.DataFrame([row(2, 5, 0.7, 0.0)]))
    _, recon = figure.axes
    assert xy(lines(recon, "two layers")[0])[1] == [FLOORS["recon_per_dim"]]
    assert "one layer" not in legend(figure)
    save(figure, tmp_path / "figure.png")


def test_what_was_published_of_the_same_cells_is_drawn():
    figure = information_figure(pd.DataFrame([row(1, 5, 1.2, 0.03), row(1, 6, 1.2, 0.03)]))
    x, y = xy(lines(figure.axes[1], "one layer, as published")[0])
    assert (x.tolist(), y.tolist()) == ([5], [ORIGINAL[1, 5][0]])
    assert not any(label.startswith("two layers") for label in legend(figure))
    for other in ({"prob": 0.3}, {"model": "learned_prior"}):
        figure = information_figure(pd.DataFrame([row(1, 5, 1.2, 0.03, **other)]))
        assert not any("published" in label for label in legend(figure))


def test_figures_do_not_mix_guides():
    rows = [
        row(1, n, loss, 0.1, guide=guide) for n in (5, 6) for guide, loss in (("gaussian", 1.1), ("truncated", 0.7))
    ]
    loss = information_figure(pd.DataFrame(rows)).axes[1]
    gaussian, truncated = (lines(loss, f"one layer, {name}")[0] for name in ("gaussian", "truncated"))
    assert xy(gaussian)[1].tolist() == [1.1, 1.1]
    assert xy(truncated)[1].tolist() == [0.7, 0.7]
    assert gaussian.get_color() != truncated.get_color()
    # Between two numbers of dimensions a line would cut off the limit's corner.
    assert gaussian.get_linestyle() == truncated.get_linestyle() == "None"


@pytest.mark.parametrize("figure", [information_figure, loss_figure])
@pytest.mark.parametrize("rows", [[], [row(1, 5, 1.2, 0.03), row(1, 5, 1.1, 0.02, prob=0.3)]])
def test_rows_that_cannot_be_drawn_together_are_refused(rows: list, figure: Callable[[pd.DataFrame], Figure]):
    with pytest.raises(InputError, match="prob"):
        figure(pd.DataFrame(rows, columns=list(row(1, 5, 1.2, 0.03))))


def test_aggregate_figure_has_a_panel_a_model_and_a_colour_a_size():
    pairs = [solved(2), solved(1, ndims=6), solved(1)]
    figure = aggregate_figure(pairs)
    one, two, below_one, below_two = figure.axes
    assert (below_one.get_xlabel(), below_two.get_xlabel()) == ("$z_1$", "$z_2$")
    assert len(lines(one, "$q(z)$")) == 2
    assert len(lines(two, "$q(z)$")) == 1
    assert lines(one, "$q(z)$, $n = 5$")[0].get_color() is not lines(one, "$q(z)$, $n = 6$")[0].get_color()
    assert np.array_equal(lines(one, "$q(z)$, $n = 5$")[0].get_color(), lines(two, "$q(z)$, $n = 5$")[0].get_color())
    assert legend(figure) == ["$q(z)$, $n = 5$", "$q(z)$, $n = 6$", "$p(z)$"]


@pytest.mark.parametrize(("layers", "prob"), CASES)
def test_aggregate_figure_draws_the_quadrature_density(layers: int, prob: float):
    config, truth = solved(layers, prob)
    axes, below = aggregate_figure([(config, truth)]).axes
    z, density = xy(lines(axes, "$q(z)$")[0])
    assert density == pytest.approx(truth.log_aggregate.exp().numpy())
    assert density @ truth.weights.numpy() == pytest.approx(1.0, abs=1e-6)
    assert np.trapezoid(density, z) == pytest.approx(1.0, abs=1e-2)
    ratio = xy(lines(below, "$q(z)$")[0])[1]
    assert (ratio * truth.log_prior.exp().numpy()) @ truth.weights.numpy() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("panels", [(3, 100), (100, 3)])
def test_no_density_is_cut_off_at_the_top(panels: tuple[int, int]):
    """Whichever of two panels that share an axis is the higher one."""
    solved = []
    for guide, ndims in zip(("gaussian", "mixture"), panels, strict=True):
        model, _, data = build(Config(ndims=ndims))
        solved.append((Config(ndims=ndims, guide=guide), exact.solve(model, FixedGuide(1.0, 1.0 / ndims), data)))
    aggregate, posterior = (draw(solved) for draw in (aggregate_figure, posterior_figure))
    for axes in (*aggregate.axes[:2], *posterior.axes):
        assert axes.get_ylim()[0] == 0
        low, high = axes.get_xlim()
        for x, y in map(xy, axes.get_lines()):
            assert y[(low < x) & (x < high)].max() < axes.get_ylim()[1]


@pytest.mark.parametrize("figure", [aggregate_figure, posterior_figure, comparison_figure])
def test_a_figure_of_densities_needs_a_run(figure: Callable[[list], Figure]):
    with pytest.raises(InputError, match="at least one"):
        figure([])


@pytest.mark.parametrize(("layers", "prob"), CASES)
def test_posterior_figure_draws_both_posteriors_and_says_what_is_lost(layers: int, prob: float):
    config, truth = solved(layers, prob)
    [axes] = posterior_figure([(config, truth)]).axes
    assert xy(lines(axes, "$q(z)$")[0])[1] == pytest.approx(truth.log_aggregate.exp().numpy())
    exact_lines = lines(axes, "exact")
    assert len(exact_lines) == 2
    for codeword in (0, 1):
        [q] = lines(axes, rf"$q(z|x{{=}}\mathbf{{{codeword}}})$")
        assert xy(q)[1] == pytest.approx(truth.log_q[codeword].exp().numpy())
        assert xy(exact_lines[codeword])[1] == pytest.approx(truth.log_posterior[codeword].exp().numpy())
    lost = run_of(layers, prob).metrics["kl_posterior"]
    names = f"{'one layer' if layers == 1 else 'two layers'}, $n = 5$"
    assert axes.get_title() == f"{names}\n$q$ is {lost:.2g} nats from $p(z|x)$"


def test_posteriors_share_an_axis():
    figure = posterior_figure([solved(1), solved(2)])
    one, two = figure.axes
    assert one.get_ylim() == two.get_ylim()
    assert legend(figure) == [
        *(rf"$q(z|x{{=}}\mathbf{{{codeword}}})$" for codeword in (0, 1)),
        *("exact $p(z|x)$", "$q(z)$", "$p(z)$"),
    ]


def luminance(colour: object) -> float:
    return float(np.array(to_rgb(colour)) @ (0.299, 0.587, 0.114))


def test_two_codewords_differ_in_grey():
    _, truth = solved(1)
    greys = sorted(map(luminance, codeword_colours(truth)))
    assert greys[1] - greys[0] > 0.25


def test_a_rare_codewords_threshold_is_shown():
    config, truth = solved(1, 1e-5)
    [axes] = posterior_figure([(config, truth)]).axes
    assert axes.get_xlim()[1] > ideal_threshold(1e-5) > 4


def study_of(*cells: tuple) -> Study:
    runs = [run_of(*cell) for cell in cells]
    return Study(to_table([run.metrics for run in runs], "results"), {}, [solved(*cell) for cell in cells])


def test_study_figures_show_the_largest_size_of_each_family(tmp_path):
    study = study_of((1, 0.5, 6), (1, 0.5, 5), (2, 0.5, 5))
    paths, failed = save_drawings(study_drawings(study), tmp_path)
    assert not failed
    assert [path.name for path in paths] == ["information.png", "loss.png", "posterior.png", "aggregate.png"]
    [posterior] = [drawing.figure() for drawing in study_drawings(study) if drawing.name == "posterior"]
    assert [axes.get_title().partition("\n")[0] for axes in posterior.axes] == [
        "one layer, $n = 6$",
        "two layers, $n = 5$",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    assert Image.open(paths[3]).text["Description"].startswith("The aggregate posterior")
    assert save_drawings(study_drawings(Study(study.table[:0], {}, [])), tmp_path / "none") == ([], {})
    assert not (tmp_path / "none").exists()


def test_each_guide_has_figures_of_its_own():
    study = study_of((1, 0.5, 5, "gaussian"), (1, 0.5, 5, "truncated"))
    drawings = {drawing.name: drawing.figure() for drawing in study_drawings(study)}
    assert [axes.get_title() for axes in drawings["aggregate"].axes[:2]] == [
        "one layer, gaussian",
        "one layer, truncated",
    ]


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
