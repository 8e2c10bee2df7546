"""The figures of a study and of a comparison, each with its name and caption: what is listed here is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from pyro_onebit.files import refuse_link
from pyro_onebit.plots.losses import cost_figure, information_figure, loss_figure
from pyro_onebit.plots.posteriors import aggregate_figure, comparison_figure, posterior_figure
from pyro_onebit.plots.style import family_of, own_style, save
from pyro_onebit.studies import Study


@dataclass(frozen=True)
class Drawing:
    """The name of a figure's file, what draws it, and its caption."""

    name: str
    figure: Callable[[], Figure]
    caption: str


def study_drawings(study: Study) -> Iterator[Drawing]:
    """A study's figures; none, if no run has succeeded."""
    if study.table.empty:
        return
    yield Drawing(
        "information",
        partial(information_figure, study.table),
        "Left: what the top latent carries of the bit. Right: what a datum costs. Dashed is the best that any decoder "
        "can do with a Gaussian q(z1|x) and the prior N(0, 1), dotted the data's entropy; crosses are the original "
        "experiment's published estimates. With one dimension the latent is not worth its cost; with many it must "
        "carry the bit, and what a Gaussian cannot give back of it is the distance to the entropy.",
    )
    yield Drawing(
        "loss",
        partial(loss_figure, study.table),
        "Left: the loss above the lowest of the guide's family, on a log axis. Right: the reconstruction's cost per "
        "dimension.",
    )
    largest = {family_of(config): (config, truth) for config, truth in sorted(study.truths, key=lambda p: p[0].ndims)}
    yield Drawing(
        "posterior",
        partial(posterior_figure, [largest[family] for family in sorted(largest, key=str)]),
        "The top latent at the most dimensions: q(z|x) of each codeword, filled; the learned model's exact posterior, "
        "dotted; the aggregate q(z), dashed; the prior, grey. Where q(z|x) is not the posterior, nats that were spent "
        "on the latent do not come back.",
    )
    yield Drawing(
        "aggregate",
        partial(aggregate_figure, study.truths),
        "The aggregate posterior q(z) of the top latent for each number of dimensions, over the prior, and their ratio "
        "below: where it is not 1, bits are spent that buy nothing.",
    )


def comparison_drawings(comparison: Study) -> Iterator[Drawing]:
    """A comparison's figures; none, if no run has succeeded."""
    if comparison.table.empty:
        return
    yield Drawing(
        "loss-seconds",
        partial(cost_figure, comparison.table),
        "The loss above the entropy against the seconds of training; a marker is a run.",
    )
    yield Drawing(
        "posteriors",
        partial(comparison_figure, comparison.truths),
        "Each guide's q(z|x), filled, over the exact posterior of its model, dotted.",
    )


def save_drawings(
    drawings: Iterable[Drawing], directory: str | Path, *, force: bool = False
) -> tuple[list[Path], dict[str, Exception]]:
    """Draw figures and write them as PNG files; one that fails leaves the others as they are.

    Arguments:
        drawings: The figures.
        directory: Where to write them.
        force: Whether to replace files that are no figures of ours.

    Returns:
        The paths of those that were written; and for each other one's name what happened.

    Raises:
        InputError: If the directory is a link.
    """
    directory = Path(directory)
    refuse_link(directory)
    paths, failed = [], {}
    for drawing in drawings:
        path = directory / f"{drawing.name}.png"
        try:
            with own_style():
                save(drawing.figure(), path, drawing.caption, force=force)
            paths.append(path)
        except Exception as error:  # matplotlib raises whatever is the matter with fonts, caches and settings
            failed[path.name] = error
    return paths, failed
