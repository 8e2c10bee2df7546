"""The parts of an ELBO's KL terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_onebit.errors import InputError
from pyro_onebit.exact import Joint, Truth, kl_name
from pyro_onebit.programs import DataLike, Program


def surgery(truth: Truth, joint: Joint) -> dict[str, float]:
    r"""The parts of the KL terms, exact, in nats per datum averaged over the data (Hoffman and Johnson 2016).

    ``kl_top``: E KL(q(z_top|x) ‖ p(z_top)) = ``mutual_information`` I_q(x; z_top) + ``kl_aggregate``. With two
    layers also ``latents_information``, I_q(z1; z2 | x), what z1 and z2 tell of each other beyond x, and

    - ``kl2`` = ``kl_top`` + ``latents_information``,
    - ``kl1`` = ``kl_lower`` - ``latents_information``, with ``kl_lower`` = E KL(q(z1|z2,x) ‖ p(z1|z2)),
    - ``kl1_redrawn``, what kl1 becomes if z1 is drawn anew for its density under p(z1|z2). It is never negative;
      kl1 may be, as far down as minus the information.
    """
    figures, names = truth.figures(), [kl_name(name) for name in truth.latents]
    parts = {name: figures[name] for name in ("mutual_information", "kl_aggregate")}
    parts |= {"kl_top": parts["mutual_information"] + parts["kl_aggregate"], names[0]: figures[names[0]]}
    if len(names) == 2:
        lower, top = names
        information = figures[top] - parts["kl_top"]
        parts |= {
            top: figures[top],
            "latents_information": information,
            "kl_lower": figures[lower] + information,
            "kl1_redrawn": float(truth.probs @ joint.kl1_redrawn),
        }
    return parts


def tail_index(guide: Any, data: DataLike) -> Tensor:
    r"""The weights' true tail index k of a Gaussian q(z1|x) with variance :math:`s^2` below 1: :math:`1 - s^2`.

    Under a standard normal prior.

    Far out on its codeword's side the posterior falls as the standard normal, so :math:`\ln r` grows as
    :math:`z^2 (1/s^2 - 1) / 2` while q's mass beyond z falls as :math:`e^{-z^2 / 2 s^2}`, and
    :math:`P(r > y) \approx y^{-1/k}`. Moments of r of order 1/k and more are infinite. k̂ comes near it only
    at numbers of draws that nobody has.

    Returns:
        Shape ``(M,)``, 0 where q is at least as wide as the prior.

    Raises:
        InputError: If the guide has two layers or is not Gaussian: then the index is not known in closed form.
    """
    program = Program("guide", guide, data.codewords.double())
    q_z1 = program.sites[program.latents[0]]["fn"]
    if len(program.latents) > 1 or not isinstance(getattr(q_z1, "base_dist", q_z1), torch.distributions.Normal):
        raise InputError("the tail index is known for a Gaussian q(z1|x) of one layer only")
    variance: Tensor = q_z1.variance.detach().reshape(-1)
    return (1.0 - variance).clamp_min(0.0)
