"""Every exact figure of a model and a guide, and how far q is from the posterior."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_onebit.exact.joint import Joint
from pyro_onebit.exact.solver import Truth, solve
from pyro_onebit.programs import DataLike


def finite(value: Any) -> float | None:
    """A number as a file can hold it: None if it is infinite or not defined, for which JSON has no words."""
    number = float(value)
    return number if math.isfinite(number) else None


class Evaluation(dict[str, Any]):
    """Exact figures by name, in nats per datum; `truth` is the table they come from."""

    truth: Truth

    @property
    def errors(self) -> dict[str, float]:
        """By how much each figure may be wrong: what it changed by on a finer grid."""
        return self.truth.errors

    @property
    def notes(self) -> dict[str, str]:
        """Of a figure that is None, why it is not known; of another one, what samples would not see of it."""
        return self.truth.notes


def evaluate(model: Any, guide: Any, data: DataLike) -> Evaluation:
    """Every exact figure of a model and a guide, which are judged as the programs that they are.

    Arguments:
        model: A Pyro program of rows x, a module or a function, with one or two scalar latents, in one plate over the
            rows; the top latent comes first.
        guide: One that draws the same latents, in any order.
        data: The codewords and their probabilities.

    Returns:
        ``loss, recon, recon_per_dim, kl1, kl2, entropy, log_evidence, kl_posterior,
        mutual_information, kl_aggregate, optimum``; nats per datum (``recon_per_dim``: per datum and
        dimension). A KL term is named after its latent, ``kl1`` after ``z1`` and ``kl_eta`` after ``eta``; ``kl2`` is
        0 where there is one latent. ``optimum``, the lowest loss that the guide's family can reach,
        is what its method ``optimum(data)`` says: None where it has none. That supposes a model whose top latent is
        N(0, 1), with dimensions of x that are independently Bernoulli given the lowest one, which given the top one is
        Gaussian; of another model it is what the model's own method ``optimum(data)`` says, or None. An infinite figure
        is infinite; None is one that is not known, and `Evaluation.notes` says why.

    Raises:
        ProgramError: If a program cannot be judged, or the two do not go together.
        ArithmeticError: If a density or a likelihood is not a number where it matters, a density is none, or what is
            drawn is not drawn from it.
    """
    truth = solve(model, guide, data)
    known = {name: None if name in truth.unsettled else value for name, value in truth.figures().items()}
    recon, probs = known["recon"], data.probs.double()
    result = Evaluation(
        loss=known["loss"],
        recon=recon,
        recon_per_dim=None if recon is None else recon / data.codewords.shape[-1],
        **{name: known[name] for name in truth.integrands if name != "recon"},
    )
    if len(truth.latents) == 1:
        result["kl2"] = 0.0
    result["entropy"] = -float(probs @ probs.log())
    result |= {name: value for name, value in known.items() if name not in result}
    result["optimum"] = _limit(truth, model, guide, data)
    result.truth = truth
    return result


def _limit(truth: Truth, model: Any, guide: Any, data: DataLike) -> float | None:
    """What the guide says of its family, for the usual models; for another one, what that model says itself."""
    known, other = (getattr(program, "optimum", None) for program in (guide, model))
    limit: float | None = known(data) if callable(known) else None
    if limit is None or truth.is_usual:
        return limit
    return other(data) if callable(other) else None


def posterior_checks(truth: Truth, joint: Joint) -> list[dict[str, Any]]:
    """How far q is from what it stands for.

    Arguments:
        truth: The top latent (`solve`).
        joint: All latents (`solve_joint`).

    Returns:
        For each codeword a row for the top latent against the learned model's exact ``posterior``,
        one for the top latent against the prior ``truncated`` as the posterior of an ideal model is,
        and, with two latents, one for the lower and one for both together (``z1,z2``). Keys:
        ``latent, codeword, target``; ``kl_forward``, KL(q ‖ target), and ``kl_reverse``, KL(target ‖ q),
        nats; ``wasserstein``, in units of the latent; ``ks``; ``wrong_side_q`` and
        ``wrong_side_target``, the mass beyond the ideal thresholds; ``below_q`` and ``above_q``, that of
        q on the side of either neighbour. None stands where a figure is
        infinite, which KL(q ‖ truncated) is as soon as q has any mass where the target has none, and
        where it is not defined: all but the first two for the joint, a side for the lower latent.
    """
    top = truth.latents[-1]
    rows = []
    for target, log_p in (("posterior", truth.log_posterior), ("truncated", truth.log_truncated)):
        sides = {"wrong_side_q": truth.wrong_side(truth.log_q), "wrong_side_target": truth.wrong_side(log_p)}
        sides["below_q"], sides["above_q"] = truth.sides(truth.log_q)
        rows += _rows(top, target, {**truth.distances(log_p), **sides})
    if len(truth.grids) == 2:
        rows += _rows(truth.latents[0], "posterior", joint.z1.distances(joint.z1.log_posterior))
        rows += _rows(
            ",".join(truth.latents), "posterior", {"kl_forward": joint.kl_forward, "kl_reverse": joint.kl_reverse}
        )
    return rows


_FIGURES = ("kl_forward", "kl_reverse", "wasserstein", "ks", "wrong_side_q", "wrong_side_target", "below_q", "above_q")


def _rows(latent: str, target: str, figures: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A row a codeword; None for a figure that is infinite or not given."""
    return [
        {
            "latent": latent,
            "codeword": codeword,
            "target": target,
            **{name: finite(figures[name][codeword]) if name in figures else None for name in _FIGURES},
        }
        for codeword in range(len(next(iter(figures.values()))))
    ]
