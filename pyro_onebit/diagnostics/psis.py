"""Pareto smoothed importance sampling: the shape k̂ of the weights' tail, by ArviZ."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: With fewer draws the tail, a fifth of them, has fewer than 20, and the prior of the fit, ten draws of k̂ = 1/2,
#: says too much of what it says.
KHAT_MINIMUM = 100
#: Weights whose logarithms are so close are equal: what is between them is rounding, which has no tail.
_EQUAL = 1e-9


def load_arviz() -> Any:
    """ArviZ, imported when it is needed: that takes seconds."""
    with warnings.catch_warnings():
        # It announces its next major version once a day.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz

    return arviz


def is_arviz_1() -> bool:
    """Whether ArviZ is of version 1 or later: in packages of its own, and on xarray's trees."""
    return int(version("arviz").partition(".")[0]) >= 1


def khat(log_weights: Tensor) -> Tensor:
    """k̂ of weights whose logarithms are given (Vehtari, Simpson, Gelman, Yao and Gabry 2024).

    A generalised Pareto distribution fitted to the largest of them. The weights' mean is worth
    something if k̂ is below `khat_threshold`; their variance is finite if the tail's true shape is below 1/2. Below 0
    the fitted tail ends, as bounded weights' does, so that all their moments are finite; how far below says no more.

    Arguments:
        log_weights: Shape ``(draws, ...)``.

    Returns:
        Shape ``(...)``; NaN if there are fewer than `KHAT_MINIMUM` draws; -∞ if all weights are equal, as at the exact
        posterior: there is no tail, and one draw is enough.
    """
    if len(log_weights) < KHAT_MINIMUM:
        return torch.full(log_weights.shape[1:], math.nan, dtype=torch.float64)
    draws_last = log_weights.double().movedim(0, -1).contiguous().clone().numpy()  # ArviZ writes into it
    with np.errstate(all="ignore"):  # of shapes that it then gives no weight, and of weights that are all equal
        shape = _shapes_by_arviz_1(draws_last) if is_arviz_1() else load_arviz().psislw(draws_last)[1]
    equal = log_weights.amax(0) - log_weights.amin(0) <= _EQUAL
    return torch.as_tensor(np.asarray(shape), dtype=torch.float64).where(~equal, -math.inf)


def _shapes_by_arviz_1(log_weights: np.ndarray) -> np.ndarray:
    """As its version 0 has them, of weights ``(..., draws)``."""
    from arviz_stats.base import array_stats

    shapes = np.full(log_weights.shape[:-1], math.inf)
    for at in np.ndindex(shapes.shape):
        with suppress(ValueError):  # of equal weights
            # It takes the logarithms of what the weights divide by, a datum's likelihood.
            _, shapes[at] = array_stats.psislw(-log_weights[at])
    return shapes


def khat_threshold(draws: int) -> float:
    """The largest k̂ at which that many draws are enough: min(1 - 1 / log10(draws), 0.7)."""
    return min(1.0 - 1.0 / math.log10(draws), 0.7) if draws > 1 else -math.inf
