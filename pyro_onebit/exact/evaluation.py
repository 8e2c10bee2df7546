"""Every exact figure of a model and a guide, and how far q is from the posterior."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_onebit.data import OneBitData
from pyro_onebit.exact.densities import GuideLike, ModelLike
from pyro_onebit.exact.joint import Joint
from pyro_onebit.exact.solver import Truth, solve


def finite(value: Any) -> float | None:
    """A number as a file can hold it: None if it is infinite or not defined, for which JSON has no words."""
    number = float(value)
    return number if math.isfinite(number) else None


class Evaluation(dict[str, Any]):
    """Exact figures by name, in nats per datum; `truth` is the table they come from."""

    truth: Truth

    @property
    def errors(self) -> dict[str, float]:
        """By how much each figure changed when the nodes doubled."""
        return self.truth.errors


def evaluate(model: ModelLike, guide: GuideLike, data: OneBitData) -> Evaluation:
    """Every exact figure of a model and a guide.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords and their probabilities.

    Returns:
        ``loss, recon, recon_per_dim, kl1, kl2, entropy, log_evidence, kl_posterior,
        mutual_information, kl_aggregate, optimum``; nats per datum (``recon_per_dim``: per datum and
        dimension); ``kl2`` is 0 with one layer, and ``optimum``, the lowest loss that the guide's family can reach,
        what its method ``optimum(data)`` says: None where it has none.

    Raises:
        ArithmeticError: If a density or a likelihood is not finite, or the figures do not settle.
    """
    truth = solve(model, guide, data)
    figures = {"kl2": 0.0, **truth.figures()}
    optimum = getattr(guide, "optimum", None)
    result = Evaluation(
        loss=figures["loss"],
        recon=figures["recon"],
        recon_per_dim=figures["recon"] / data.ndims,
        kl1=figures["kl1"],
        kl2=figures["kl2"],
        entropy=data.entropy,
        log_evidence=figures["log_evidence"],
        kl_posterior=figures["kl_posterior"],
        mutual_information=figures["mutual_information"],
        kl_aggregate=figures["kl_aggregate"],
        optimum=optimum(data) if callable(optimum) else None,
    )
    result.truth = truth
    return result


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
            **{name: finite(figures[name][codeword]) if name in figures else None for name in _FIGURES},
        }
        for codeword in range(2)
    ]
