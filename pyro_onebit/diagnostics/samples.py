"""Samples alone, whoever drew them, held against the exact posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.errors import InputError
from pyro_onebit.exact import Marginal
from pyro_onebit.system import Shown

#: Shares of the exact posterior in its central intervals.
_LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True, repr=False)
class SampleComparison(Shown):
    """How far samples of a latent are from its exact posterior; each tensor of shape ``(M,)``, one for each codeword.

    Arguments:
        wasserstein: Wasserstein-1 of the samples' empirical distribution, in units of the latent. Of S independent
            exact draws it is of the order of the posterior's width divided by the root of S.
        ks: The Kolmogorov-Smirnov statistic, the largest distance of the distribution functions.
        ks_pvalue: Probability of a larger one for as many independent exact draws; draws of a Markov chain are not
            independent, so thin them first.
        levels: Shares of the exact posterior, ``(L,)``.
        coverage: The share of samples in the exact posterior's central interval of each level, ``(L, M)``.
    """

    wasserstein: Tensor
    ks: Tensor
    ks_pvalue: Tensor
    levels: Tensor
    coverage: Tensor

    def shown(self) -> dict[str, Any]:
        """Each figure of each codeword."""
        figures = {name: getattr(self, name).tolist() for name in ("wasserstein", "ks", "ks_pvalue")}
        covered = zip(self.levels.tolist(), self.coverage.tolist(), strict=True)
        figures |= {f"coverage_{100 * level:.0f}": shares for level, shares in covered}
        return {name: [float(f"{value:.4g}") for value in values] for name, values in figures.items()}


def compare_samples(latent: Marginal, samples: Any) -> SampleComparison:
    """Hold samples of a latent against its exact posterior p(z|x).

    Arguments:
        latent: The latent: ``exact.solve`` for the top one, ``exact.solve_joint(…).z1`` for the lowest.
        samples: For each codeword its draws: a sequence of M arrays ``(S,)``, of any library, of lengths that may
            differ; or one array ``(S, M)``.

    Raises:
        InputError: If there are not M of them, or one is empty or not finite.
    """
    words = len(latent.probs)
    columns = _columns(samples)
    if len(columns) != words or not all(len(own) and np.isfinite(own).all() for own in columns):
        raise InputError(
            f"samples are {len(columns)} columns of lengths {[len(own) for own in columns]}; they must be "
            f"{words}, one for each codeword, of finite numbers"
        )
    rows = [_compare(latent, codeword, torch.from_numpy(own)) for codeword, own in enumerate(columns)]
    wasserstein, ks, pvalue, coverage = (torch.stack(parts) for parts in zip(*rows, strict=True))
    return SampleComparison(wasserstein, ks, pvalue, torch.tensor(_LEVELS, dtype=torch.float64), coverage.T)


def _columns(samples: Any) -> Sequence[np.ndarray]:
    if not isinstance(samples, list | tuple):
        samples = np.asarray(samples).T
    return [np.asarray(own, dtype=np.float64).ravel().copy() for own in samples]


def _compare(latent: Marginal, codeword: int, samples: Tensor) -> tuple[Tensor, ...]:
    """Wasserstein-1, KS and its p-value, and coverage, of one codeword's samples."""
    from scipy.stats import kstwo  # which takes long to import

    grid, z = latent.grid, samples.sort().values
    density = latent.log_posterior[codeword].exp()
    level = grid.integral_to(density, z.clamp(grid.edges[0], grid.edges[-1])).clamp(0.0, 1.0)
    ks = grid.distance(density, z)
    # Between two points there is neither a sample nor a node: there the samples' distribution function is constant, the
    # posterior's nearly linear, and so their difference, which may change its sign.
    points = torch.cat([grid.nodes, z]).sort().values
    at = grid.integral_to(density, points.clamp(grid.edges[0], grid.edges[-1])).clamp(0.0, 1.0)
    below = torch.searchsorted(z, points[:-1], right=True).double() / len(z)
    left, right = (at[:-1] - below).abs(), (at[1:] - below).abs()
    crosses = (at[:-1] < below) & (below < at[1:])
    gap = 0.5 * torch.where(crosses, (left**2 + right**2) / (left + right), left + right)
    inside = (level[:, None] - 0.5).abs() <= 0.5 * torch.tensor(_LEVELS, dtype=torch.float64)
    statistic, pvalue = torch.tensor([ks, kstwo.sf(ks, len(z))], dtype=torch.float64)
    return gap @ points.diff(), statistic, pvalue, inside.double().mean(0)
