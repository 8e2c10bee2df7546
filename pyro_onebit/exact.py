r"""The truth about a model and a guide, by quadrature in float64.

With one scalar latent a layer every expectation is an integral over one or two lines. The top
latent's likelihood :math:`p(x \mid z_\mathrm{top})` and its approximate posterior
:math:`q(z_\mathrm{top} \mid x)` are tabulated on a grid that resolves both; what one layer and two
layers have in common is computed from that table.
"""

from __future__ import annotations

from torch import nn

from pyro_onebit.data import OneBitData
from pyro_onebit.joint import Joint, solve_joint
from pyro_onebit.latent import Latent
from pyro_onebit.optimum import optimum
from pyro_onebit.posterior import posterior_checks
from pyro_onebit.truth import Truth, solve
from pyro_onebit.weights import WeightLaw

__all__ = [
    "Evaluation",
    "Joint",
    "Latent",
    "Truth",
    "WeightLaw",
    "evaluate",
    "optimum",
    "posterior_checks",
    "solve",
    "solve_joint",
]


class Evaluation(dict[str, float]):
    """Exact figures by name, in nats per datum; `truth` is the table they come from."""

    truth: Truth

    @property
    def errors(self) -> dict[str, float]:
        """By how much each figure changed when the nodes doubled."""
        return self.truth.errors


def evaluate(model: nn.Module, guide: nn.Module, data: OneBitData) -> Evaluation:
    """Every exact figure of a model and a guide.

    Arguments:
        model: Has ``p_x(z1)`` and, with two layers, ``p_z1(z2)``.
        guide: Has ``q_z1(x)`` and, with two layers, ``q_z2(z1)``.
        data: The codewords and their probabilities.

    Returns:
        ``loss, recon, recon_per_dim, kl1, kl2, entropy, log_evidence, kl_posterior,
        mutual_information, kl_aggregate, optimum``; nats per datum (``recon_per_dim``: per datum and
        dimension); ``kl2`` is 0 with one layer.

    Raises:
        ArithmeticError: If a density or a likelihood is not finite, or the figures do not settle.
    """
    truth = solve(model, guide, data)
    figures = {"kl2": 0.0, **truth.figures()}
    one_layer = "kl2" not in truth.terms
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
        optimum=optimum(data.ndims, data.prob) if one_layer else data.entropy,
    )
    result.truth = truth
    return result
