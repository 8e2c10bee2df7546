"""A page to play with: how many dimensions, which family of guides, or q by hand; every number on it is exact."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from pyro.distributions import Bernoulli, Normal
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp
from torch import Tensor

from pyro_onebit import exact
from pyro_onebit.data import OneBitData
from pyro_onebit.distributions import NormalMixture
from pyro_onebit.files import claim, write_whole
from pyro_onebit.plots import PALETTE
from pyro_onebit.quadrature import Grid
from pyro_onebit.reporting.templates import templates
from pyro_onebit.reproducibility import one_thread
from pyro_onebit.system import progress
from pyro_onebit.training import Config, build

Program = Callable[[Tensor], None]
_Array = NDArray[np.float64]
#: What the page is recognised by.
_MARK = rb"<title>Explore: the one-bit VAE</title>"
#: The slider's numbers of dimensions.
NDIMS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
#: Draws of an importance-weighted bound.
PARTICLES = (1, 2, 5, 10, 100, 1000)
#: Where densities are drawn.
_POINTS = np.linspace(-4.0, 4.0, 401)
_FIGURES = ("loss", "recon", "log_evidence", "mutual_information")


def mirrored(weights: Sequence[float], locs: Sequence[float], scales: Sequence[float]) -> tuple[Program, Program]:
    """A guide and the best model for it: q(z|x=1) is a mixture of normals, q(z|x=0) its mirror image.

    The best decoder given q is the responsibility q(x=1|z), in each dimension.

    Arguments:
        weights: The components' weights.
        locs: Their means.
        scales: Their standard deviations.

    Returns:
        The model and the guide, Pyro programs of rows.
    """

    def q(sides: Tensor) -> NormalMixture:
        """Of each of sides ``(..., 1)``, 1 or -1."""
        weight, loc, scale = (sides.new_tensor(values).expand(*sides.shape, -1) for values in (weights, locs, scales))
        return NormalMixture(weight.log(), sides[..., None] * loc, scale)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            logit = q(torch.ones_like(z)).log_prob(z) - q(-torch.ones_like(z)).log_prob(z)
            pyro.sample("x", Bernoulli(logits=logit.expand(*logit.shape[:-1], x.shape[-1])).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(2.0 * x[:, :1] - 1.0).to_event(1))

    return model, guide


def _best_mixture(ndims: int, components: int = 3) -> tuple[_Array, _Array, _Array]:
    """A mixture of normals with a low loss, as far as a search from the best Gaussian comes.

    Returns:
        Weights, means and standard deviations of q(z|x=1); q(z|x=0) is its mirror image.
    """
    best = exact.gaussian_optimum(ndims)
    loc, scale = best.loc[1], best.scale[1]
    grid = Grid(torch.linspace(-12.0, 12.0, 361, dtype=torch.float64), order=16)
    z, weights = grid.nodes.numpy(), grid.weights.numpy()
    log_prior = -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi)

    def parts(v: _Array) -> tuple[_Array, _Array, _Array]:
        w, m, s = v.reshape(3, components)
        return np.exp(w - logsumexp(w)), m, np.exp(s)

    def loss(v: _Array) -> float:
        w, m, s = parts(v)
        log_q = [
            logsumexp(np.log(w / s)[:, None] - 0.5 * ((z - side * m[:, None]) / s[:, None]) ** 2, axis=0)
            - 0.5 * math.log(2.0 * math.pi)
            for side in (1.0, -1.0)
        ]
        surprise = -log_expit(log_q[0] - log_q[1])
        return float(weights @ (np.exp(log_q[0]) * (ndims * surprise + log_q[0] - log_prior)))

    spread = np.linspace(-1.0, 1.0, components)
    start = np.concatenate(
        [np.zeros(components), loc + 0.7 * scale * spread, np.full(components, math.log(0.8 * scale))]
    )
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-6})
    return parts(found.x)


def _judged(model: Any, guide: Any, ndims: int) -> dict[str, Any]:
    """What the page says of programs: figures, bounds, and densities of the top latent."""
    data = OneBitData(ndims)
    figures = exact.evaluate(model, guide, data)
    truth = figures.truth
    law = exact.solve_joint(model, guide, data, truth).law
    bounds = (law.expected_bound(list(PARTICLES)) @ law.probs).tolist()
    places = np.unique(np.searchsorted(truth.z.numpy(), _POINTS).clip(0, len(truth.z) - 1))
    densities = {"q": truth.log_q, "p": truth.log_posterior}
    return {
        **{name: figures[name] for name in _FIGURES},
        "bounds": [-figures["loss"], *bounds[1:]],
        "z": _short(truth.z.numpy()[places]),
        **{name: [_short(row.exp().numpy()[places]) for row in logs] for name, logs in densities.items()},
    }


def _truncated(ndims: int) -> dict[str, Any]:
    """A normal that is cut at 0, under a decoder that is cut there too: the loss is the entropy, of any n."""
    entropy = OneBitData(ndims).entropy
    half = [
        np.where(side * _POINTS > 0.0, 2.0 * np.exp(-0.5 * _POINTS**2) / math.sqrt(2.0 * math.pi), 0.0)
        for side in (-1, 1)
    ]
    rows = [_short(row) for row in half]
    figures = {"loss": entropy, "recon": 0.0, "log_evidence": -entropy, "mutual_information": entropy}
    return {**figures, "bounds": [-entropy] * len(PARTICLES), "z": _short(_POINTS), "q": rows, "p": rows}


def _short(values: _Array) -> list[float]:
    """As they are drawn: to six digits."""
    return [float(f"{value:.6g}") for value in values]


def explorer_data(ndims: Sequence[int] = NDIMS, *, quiet: bool = True) -> list[dict[str, Any]]:
    """What the page holds: for each number of dimensions every family's figures, bounds and densities.

    Arguments:
        ndims: The slider's numbers of dimensions.
        quiet: Show no progress bar.
    """
    found = []
    # Its tables are small: more threads take longer, and many times so where others need the cores.
    with one_thread():
        for n in progress(ndims, quiet=quiet, unit="n"):
            best = exact.gaussian_optimum(n)
            model, guide, _ = build(Config(ndims=n, layers=2, start="analytic"))
            families = {
                "gaussian": _judged(*mirrored([1.0], [best.loc[1]], [best.scale[1]]), n),
                "mixture": _judged(*mirrored(*(part.tolist() for part in _best_mixture(n))), n),
                "two_layer": _judged(model, guide, n),
                "truncated": _truncated(n),
            }
            found.append({"n": n, "families": families})
    return found


def write_explorer(path: str | Path, ndims: Sequence[int] = NDIMS, *, quiet: bool = True, force: bool = False) -> Path:
    """Write the page, one file that needs nothing else.

    Arguments:
        path: The file.
        ndims: The slider's numbers of dimensions.
        quiet: Show no progress bar.
        force: Replace a file that is not such a page.

    Returns:
        The page's path.

    Raises:
        InputError: If there is another file.
        WriteError: If it cannot be written.
    """
    claim(Path(path), _MARK, force=force)
    own = files("pyro_onebit.reporting").joinpath("explorer.js").read_text(encoding="utf-8")
    plotly = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    content = {"data": explorer_data(ndims, quiet=quiet), "particles": PARTICLES, "colours": PALETTE[:2]}
    page = (
        templates()
        .get_template("explorer.html.j2")
        .render(plotly=Markup(plotly), script=Markup(own), content=Markup(json.dumps(content, allow_nan=False)))
    )
    write_whole(Path(path), page.encode(), _MARK, force=force)
    return Path(path)
