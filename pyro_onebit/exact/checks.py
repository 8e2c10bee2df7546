"""Whether densities are densities, draws are drawn from them, and figures are what samples would show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_onebit.quadrature import Grid

if TYPE_CHECKING:
    from pyro_onebit.exact.solver import Truth

#: What an integral of a density may differ from one by.
_NORMALISED = 1e-7
#: The probability with which right draws are taken for wrong ones.
_FALSE_ALARM = 1e-10
#: Samples do not go further out than so many standard deviations.
_SEEN = 12.0


def is_normalised(truth: Truth) -> bool:
    """Whether q for each codeword, and the prior, integrate to one."""
    return all(abs(total - 1.0) <= _NORMALISED for total in _totals(truth).values())


def check_densities(truth: Truth, draws: list[Tensor]) -> None:
    """Refuse densities that do not integrate to one, and draws that are not drawn from them.

    Arguments:
        truth: The densities.
        draws: Of each latent, the lowest first, ``(count, M + 1)``: of q for each codeword, and of the prior.

    Raises:
        ArithmeticError: With by how much.
    """
    for what, total in _totals(truth).items():
        if not abs(total - 1.0) <= _NORMALISED:
            raise ArithmeticError(
                f"{what} integrates to {total:.9g}, not to 1: it is no density, or has parts that are too narrow or "
                f"too far out to be found"
            )
    for name, grid, of_q, of_p, drawn in zip(
        truth.latents, truth.grids, truth.q_masses, truth.p_masses, draws, strict=True
    ):
        allowed = math.sqrt(-0.5 * math.log(0.5 * _FALSE_ALARM) / len(drawn))
        for column, masses in enumerate([*of_q, of_p[0]]):
            apart = _distance(grid, masses, drawn[:, column])
            if apart > allowed:
                whose = "the model" if column == len(of_q) else f"the guide, for codeword {column},"
                raise ArithmeticError(
                    f"{whose} draws {name} from another law than its density's: their distribution functions differ "
                    f"by {apart:.3f}"
                )


def _totals(truth: Truth) -> dict[str, float]:
    names = [f"q({', '.join(truth.latents)}|x) of codeword {c}" for c in range(len(truth.probs))]
    totals = [*truth.q_masses[-1].sum(-1).tolist(), float(truth.p_masses[-1][0].sum())]
    return dict(zip([*names, "the model's prior"], totals, strict=True))


def _distance(grid: Grid, masses: Tensor, draws: Tensor) -> float:
    """The largest distance of the draws' distribution function from that of masses at nodes (Kolmogorov-Smirnov)."""
    z = draws.sort().values
    share = torch.arange(len(z) + 1, dtype=z.dtype) / len(z)
    at = grid.integral_to(masses / grid.weights, z.clamp(grid.edges[0], grid.edges[-1]))
    return float(torch.maximum((at - share[:-1]).abs(), (at - share[1:]).abs()).max())


def note_on(truth: Truth, name: str) -> str | None:
    """What samples would not see of a figure; None if they would see most of it."""
    along = truth.along(name)
    # Along the top latent alone, or along all of them.
    those = slice(len(truth.latents) - len(along), None)
    for latent, grid, shares, masses in zip(
        truth.latents[those], truth.grids[those], along, truth.q_masses[those], strict=True
    ):
        level = torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64).expand(len(masses), 3)
        low, middle, high = grid.invert(grid.cumulative(masses / grid.weights), level).T
        far = (grid.nodes - middle[:, None]).abs() > _SEEN * 0.5 * (high - low)[:, None]
        unseen = truth.probs @ (shares * far).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(-1)
        if abs(float(unseen)) > 0.5 * max(1e-6, abs(float(truth.probs @ shares.sum(-1)))):
            where = f"values of {latent} beyond {_SEEN:.0f} standard deviations"
            return f"it is dominated by {where}, which samples do not see"
    return None
