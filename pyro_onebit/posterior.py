"""The learned q against the exact posterior and the ideal, truncated one, a latent and a codeword at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_onebit.joint import Joint
from pyro_onebit.latent import Latent
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
    rows = _rows(top, truth, "posterior", truth.log_posterior) + _rows(top, truth, "truncated", truth.log_truncated)
    if len(truth.grids) == 2:
        rows += _rows("z1", joint.z1, "posterior", joint.z1.log_posterior, has_sides=False)
        for codeword in range(2):
            rows.append(
                {
                    "latent": "z1,z2",
                    "codeword": codeword,
                    "target": "posterior",
                    "kl_forward": float(joint.kl_forward[codeword]),
                    "kl_reverse": float(joint.kl_reverse[codeword]),
                    **dict.fromkeys(("wasserstein", "ks", "wrong_side_q", "wrong_side_target")),
                }
            )
    return rows


def _rows(name: str, latent: Latent, target: str, log_p: Tensor, *, has_sides: bool = True) -> list[dict[str, Any]]:
    figures = latent.distances(log_p)
    if has_sides:
        figures["wrong_side_q"] = latent.wrong_side(latent.log_q)
        figures["wrong_side_target"] = latent.wrong_side(log_p)
    return [
        {
            "latent": name,
            "codeword": codeword,
            "target": target,
            **{key: float(value[codeword]) if value[codeword].isfinite() else None for key, value in figures.items()},
            **({} if has_sides else dict.fromkeys(("wrong_side_q", "wrong_side_target"))),
        }
        for codeword in range(2)
    ]
