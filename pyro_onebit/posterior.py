"""The learned q against the exact posterior and the ideal, truncated one, a latent and a codeword at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_onebit.joint import Joint
from pyro_onebit.truth import Truth

__all__ = ["posterior_checks"]


def posterior_checks(truth: Truth, joint: Joint) -> list[dict[str, Any]]:
    """How far q is from what it stands for.

    Arguments:
        truth: The top latent (`solve`).
        joint: All latents (`solve_joint`).

    Returns:
        For each codeword a row for the top latent against the learned model's exact ``posterior``,
        one for the top latent against the ``truncated`` standard normal that is the posterior of an
        ideal model, and, with two layers, one for ``z1`` and one for all latents together
        (``z1,z2``). Keys: ``latent, codeword, target``; ``kl_forward``, KL(q ‖ target), and
        ``kl_reverse``, KL(target ‖ q), nats; ``wasserstein``, in units of the latent; ``ks``;
        ``wrong_side_q`` and ``wrong_side_target``, the mass beyond the ideal threshold. None stands
        where a figure is infinite, which KL(q ‖ truncated) is as soon as q has any mass where the
        target has none, and where it is not defined: the last four for the joint, a side for z1.
    """
    top = f"z{len(truth.grids)}"
    rows = []
    for target, log_p in (("posterior", truth.log_posterior), ("truncated", truth.log_truncated)):
        sides = {"wrong_side_q": truth.wrong_side(truth.log_q), "wrong_side_target": truth.wrong_side(log_p)}
        rows += _rows(top, target, {**truth.distances(log_p), **sides})
    if len(truth.grids) == 2:
        rows += _rows("z1", "posterior", joint.z1.distances(joint.z1.log_posterior))
        rows += _rows("z1,z2", "posterior", {"kl_forward": joint.kl_forward, "kl_reverse": joint.kl_reverse})
    return rows


_FIGURES = ("kl_forward", "kl_reverse", "wasserstein", "ks", "wrong_side_q", "wrong_side_target")


def _rows(latent: str, target: str, figures: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A row a codeword; None for a figure that is infinite or not given."""
    return [
        {
            "latent": latent,
            "codeword": codeword,
            "target": target,
            **{
                name: float(figures[name][codeword]) if name in figures and figures[name][codeword].isfinite() else None
                for name in _FIGURES
            },
        }
        for codeword in range(2)
    ]
