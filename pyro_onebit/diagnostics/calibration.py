"""Calibration of a guide, by simulation and exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.errors import InputError
from pyro_onebit.exact import Marginal
from pyro_onebit.programs import DataLike, Pair
from pyro_onebit.reproducibility import seeded
from pyro_onebit.system import Shown


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """Simulation-based calibration of q(z_top|x).

    Arguments:
        levels: The share of q(z_top|x) below the latent that made x, for each simulation; uniform if q is the
            exact posterior. Shape ``(simulations,)``.
        codeword: Which codeword x was, by number; -1 if none. Shape ``(simulations,)``.
        ks_pvalue: Probability of levels less uniform than these, were they uniform (Kolmogorov-Smirnov).
        symmetry_pvalue: Of the levels and their mirror images lying further apart, were their law symmetric: small
            if q is off to one side (Yao, Vehtari, Simpson and Gelman 2018).
    """

    levels: Tensor
    codeword: Tensor
    ks_pvalue: float
    symmetry_pvalue: float

    def shown(self) -> dict[str, Any]:
        """How many simulations there were, and the p-values."""
        return {"simulations": len(self.levels), "ks_pvalue": self.ks_pvalue, "symmetry_pvalue": self.symmetry_pvalue}


def simulate_calibration(
    model: Any, guide: Any, data: DataLike, simulations: int = 1000, draws: int = 200, seed: int = 0
) -> Calibration:
    r"""Variational simulation-based calibration (VSBC; Yao, Vehtari, Simpson and Gelman 2018).

    :math:`z \sim p(z)`, :math:`x \sim p(x|z)`, and the share of q(z_top|x) below z_top, estimated by the rank of
    z_top among draws of q, spread evenly within the rank. It tests a guide on the data that its model makes:
    also on rows that are no codeword, where there are any, and where the guide was never trained.

    Arguments:
        model: The model.
        guide: Its guide.
        data: Says which rows are codewords.
        simulations: Pairs of z and x.
        draws: Draws of q for each.
        seed: Random seed for all draws; torch's generator is left as it was.

    Raises:
        InputError: If `simulations` or `draws` is below 1.
    """
    if simulations < 1 or draws < 1:
        raise InputError(f"simulations is {simulations} and draws is {draws}; each must be at least 1")
    from scipy.stats import ks_2samp, kstest  # which takes long to import

    pair = Pair(model, guide, data)
    with seeded(seed):
        levels, codeword = (torch.cat(part) for part in zip(*_simulate(pair, simulations, draws), strict=True))
    return Calibration(
        levels,
        codeword,
        float(kstest(levels.numpy(), "uniform").pvalue),
        float(ks_2samp(levels.numpy(), (1.0 - levels).numpy()).pvalue),
    )


def _simulate(pair: Pair, simulations: int, draws: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Levels and codewords, block by block: the rows x of all simulations may not fit the memory."""
    top = pair.latents[-1]
    for block in torch.arange(simulations).split(max(1, 2**22 // (pair.x.shape[-1] + draws))):
        made = {name: value[:, :1] for name, value in pair.draw(pair.model, len(block)).items()}
        x = pair.draw_x(made).squeeze(1)
        drawn = pair.draw_given(x, draws)[top]
        rank = (drawn < made[top].squeeze(-1)).sum(0)
        codeword = torch.full((len(block),), -1)
        for number, word in enumerate(pair.x):
            codeword[(x == word).all(-1)] = number
        yield (rank + torch.rand(len(block), dtype=torch.float64)) / (draws + 1), codeword


def calibration_curve(latent: Marginal) -> tuple[Tensor, Tensor]:
    r"""The exact calibration of q(z|x) on each codeword: :math:`F_q(z)` against :math:`F_p(z)`, at the nodes.

    For z from the exact posterior the level :math:`u = F_q(z)` has the distribution function
    :math:`P(u \le F_q(z)) = F_p(z)`: the diagonal if q is the posterior. The largest distance from the diagonal
    is the Kolmogorov-Smirnov distance of q and p (`Marginal.distances`).

    Returns:
        :math:`F_q` and :math:`F_p`, each of shape ``(M, N)``.
    """
    return latent.grid.cumulative(latent.log_q.exp()), latent.grid.cumulative(latent.log_posterior.exp())
