"""Colours, names, and what every figure has."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_onebit.errors import InputError
from pyro_onebit.exact import Truth
from pyro_onebit.files import write_whole
from pyro_onebit.plots.backend import matplotlib
from pyro_onebit.studies import CELL
from pyro_onebit.training import AnyConfig, identity_of

_DPI = 150
#: What a figure's file is recognised by: matplotlib drew it, and it has a caption.
_MARK = rb"\A\x89PNG[\s\S]{0,400}Matplotlib version[\s\S]{0,400}Description\0"
#: Okabe and Ito's palette, which colour-blind readers can tell apart, in an order in which neighbours differ in grey.
PALETTE = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#F0E442", "#009E73", "#CC79A7")
#: A marker for each colour: who sees no colour tells families by it.
MARKERS = "osD^vP*X"
LAYER_COLOURS = {1: PALETTE[0], 2: PALETTE[1]}
DARK, GREY, LIGHT = "0.1", "0.6", "0.93"
LAYER_NAMES = {1: "one layer", 2: "two layers"}

#: What the runs of one curve have in common: all that a cell has but the number of dimensions.
FAMILY = tuple(name for name in CELL if name not in ("ndims", "repeats"))


def family_of(config: AnyConfig) -> tuple[Any, ...]:
    """The family that a run belongs to."""
    own = identity_of(config)
    return tuple(own[name] for name in FAMILY)


def labels_of(families: Iterable[tuple[Any, ...]], lead: str = "layers") -> dict[tuple[Any, ...], str]:
    """What each of several families is called: by its leading column, and by what else tells it from others like it.

    Raises:
        InputError: If there is none.
    """
    families = list(dict.fromkeys(families))
    if not families:
        raise InputError("there is no run to draw; give at least one")
    labels = {}
    for family in families:
        own = dict(zip(FAMILY, family, strict=True))
        alike = [other for other in families if other[FAMILY.index(lead)] == own[lead]]
        more = [
            f"p = {own[name]:g}" if name == "prob" else str(own[name])
            for i, name in enumerate(FAMILY)
            if name != lead and len({other[i] for other in alike}) > 1
        ]
        labels[family] = ", ".join([LAYER_NAMES[own[lead]] if lead == "layers" else str(own[lead]), *more])
    return labels


def colours_of(families: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """A colour for each of several families: its number of layers' own, or if these are not enough, another each."""
    families = list(dict.fromkeys(families))
    layers = [family[FAMILY.index("layers")] for family in families]
    if len(set(layers)) == len(families):
        return {family: LAYER_COLOURS[own] for family, own in zip(families, layers, strict=True)}
    return {family: PALETTE[i % len(PALETTE)] for i, family in enumerate(families)}


def codeword_colours(truth: Truth) -> list[Any]:
    """A colour for each codeword: blue and orange of two; of many, from dark to light as they lie on the line."""
    count = len(truth.probs)
    if count == 2:
        return list(PALETTE[:2])
    # The map's end is too light to read on white.
    return [matplotlib.colormaps["viridis"](0.94 * place / (count - 1)) for place in truth.order.argsort().tolist()]


def ndims_axis(axes: Axes) -> None:
    """The number of dimensions, on a log axis with ticks at 1, 10, 100 and so on."""
    axes.set(xscale="log", xlabel="dimensions $n$")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color=LIGHT)


def legend(figure: Figure, **kwargs: Any) -> None:
    """One legend for all panels, each label once."""
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), frameon=False, **kwargs)


@contextmanager
def own_style() -> Iterator[None]:
    """Within, what is drawn looks as it does here, and needs no more than is here, whatever a matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@own_style()
def png(figure: Figure, caption: str = "") -> bytes:
    """A figure as a PNG file's content, which holds its caption."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, metadata={"Description": caption})
    return content.getvalue()


def save(figure: Figure, path: str | Path, caption: str = "", *, force: bool = False) -> None:
    """Write a figure as PNG, whole or not at all.

    Arguments:
        figure: The figure.
        path: The file.
        caption: What the file says of it; empty: the file's name.
        force: Whether to replace a file that is no figure of ours.

    Raises:
        InputError: If there is such a file.
        WriteError: If the directory cannot be written.
    """
    path = Path(path)
    write_whole(path, png(figure, caption or path.stem), _MARK, force=force)
