r"""Where a guide's gap comes from: its family, its amortisation, and how far the model has bent to meet it.

:math:`\mathrm{KL}(q \,\|\, p) = \mathrm{KL}(q^* \,\|\, p) + \text{rest}`: the approximation gap of the best
member :math:`q^*` of the family, chosen freely for each codeword, and the amortisation gap (Cremer, Li and
Duvenaud 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_onebit.data import OneBitData
from pyro_onebit.distributions import sample_from_noise
from pyro_onebit.exact import Joint, Truth, solve, solve_joint
from pyro_onebit.programs import float64_copy
from pyro_onebit.quadrature import Grid

#: Iterations of L-BFGS.
_ITERATIONS = 150


@dataclass(frozen=True)
class GapSplit:
    """KL(q(z|x) ‖ p(z|x)) of all latents and its two parts, nats, each of shape ``(2,)``, for each codeword.

    Arguments:
        total: The gap of the guide as it is.
        approximation: That of the best member of its family found for the codeword alone.
    """

    total: Tensor
    approximation: Tensor

    @property
    def amortisation(self) -> Tensor:
        """What a member for each codeword would save, shape ``(2,)``."""
        return self.total - self.approximation


def gap_split(model: Any, guide: Any, data: OneBitData, truth: Truth, joint: Joint) -> GapSplit:
    """Split a guide's gap, by optimising a copy of it for each codeword alone.

    A copy that need only please one codeword is a free member of the family, whatever the family is. Its figure
    is then computed anew, on grids of its own; where the search has found nothing better, the guide as it
    is stands.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        truth: Their `solve`.
        joint: Their `solve_joint`.
    """
    total, best = joint.kl_forward, joint.kl_forward.clone()
    for codeword in range(2):
        free = _free_member(model, guide, data, joint, codeword)
        if free is not None:
            figures = solve_joint(model, free, data, solve(model, free, data))
            best[codeword] = torch.minimum(best[codeword], figures.kl_forward[codeword])
    return GapSplit(total, best)


def ideal_gap(guide: Any, data: OneBitData, truth: Truth) -> float | None:
    """The gap of a family of one-layer guides to the posterior of an ideal threshold decoder, nats per datum.

    That decoder tells each dimension's value by the side of the threshold alone, wrongly as often as suits the
    family best; its posterior is a truncated normal but for the errors. By what a family's gap to its learned
    model is lower than this, the model has given way.

    Arguments:
        guide: Where the search for the family's best member starts.
        data: The codewords.
        truth: Says on which side of which threshold q has them.

    Returns:
        None if the guide's distributions are no known function of noise or have no ``cdf``, and with two layers.
    """
    copied, x, probs = float64_copy(guide), data.codewords.double(), data.probs.double()
    if hasattr(copied, "q_z2") or not _has_cdf(copied.q_z1(x)):
        return None
    noise = _noise_grid(_ONE)

    def figures() -> tuple[Tensor, Tensor]:
        """The loss of q under its best threshold decoder, and q's gap to that decoder's posterior."""
        q = copied.q_z1(x)
        below = q.base_dist.cdf(x.new_full((2, 1), truth.truncation)).squeeze(-1)
        right = 1.0 - below if truth.side > 0 else below
        # Of codeword and side together; the side of codeword 1 comes second.
        mass = probs[:, None] * torch.stack([1.0 - right, right], 1).clamp(1e-300, 1.0)
        log_share = (mass / mass.sum(0)).log()
        recon = -data.ndims * (mass * log_share).sum()
        z = _carried(q, noise.nodes[:, None, None])
        kl = _normal_weights(noise) @ (q.log_prob(z) - log_standard_normal(z).squeeze(-1)) @ probs
        log_evidence = torch.logsumexp(data.ndims * log_share + probs.log(), 1) @ probs
        return recon + kl, recon + kl + log_evidence

    _minimise(lambda: figures()[0], copied)
    with torch.no_grad():
        return float(figures()[1])


def _has_cdf(conditional: Any) -> bool:
    try:
        conditional.base_dist.cdf(conditional.sample())
    except (AttributeError, NotImplementedError):
        return False
    return sample_from_noise(conditional, conditional.sample()) is not None


def _carried(conditional: Any, noise: Tensor) -> Tensor:
    z = sample_from_noise(conditional, noise.expand(*noise.shape[:-2], *conditional.batch_shape[-1:], 1))
    assert z is not None
    return z


def _free_member(model: Any, guide: Any, data: OneBitData, joint: Joint, codeword: int) -> Any:
    """A copy of the guide with the least gap on one codeword that is found; None if there is nothing to choose.

    Nor is there a way to choose among two-layer guides that are no known functions of noise.
    """
    free, x = float64_copy(guide), data.codewords.double()[codeword : codeword + 1]
    if not any(p.requires_grad for p in free.parameters()):
        return None
    lower = joint.z1
    log_likelihood = _Interpolated(lower.z, lower.log_likelihood[codeword])
    zero = x.new_zeros(1, 1)
    with torch.no_grad():
        in_noise = sample_from_noise(free.q_z1(x), zero) is not None
        if hasattr(free, "q_z2") and not (in_noise and sample_from_noise(free.q_z2(zero), zero) is not None):
            return None
    if hasattr(free, "q_z2"):
        frozen_model = float64_copy(model).requires_grad_(False)
        noise1, noise2 = _noise_grid(_LOWER), _noise_grid(_UPPER)

        def gap() -> Tensor:
            q_z1 = free.q_z1(x)
            z1 = _carried(q_z1, noise1.nodes[:, None, None])[:, 0]
            q_z2 = free.q_z2(z1)
            z2 = _carried(q_z2, noise2.nodes[:, None, None])
            upper = q_z2.log_prob(z2) - log_standard_normal(z2).squeeze(-1) - frozen_model.p_z1(z2).log_prob(z1)
            lower = q_z1.log_prob(z1[:, None]).squeeze(-1) - log_likelihood(z1.squeeze(-1))
            return _normal_weights(noise1) @ (_normal_weights(noise2) @ upper + lower)

    elif in_noise:
        noise = _noise_grid(_ONE)

        def gap() -> Tensor:
            q_z1 = free.q_z1(x)
            z1 = _carried(q_z1, noise.nodes[:, None, None])
            log_q = q_z1.log_prob(z1).squeeze(-1)
            z = z1.flatten()
            return _normal_weights(noise) @ (log_q - log_standard_normal(z) - log_likelihood(z))

    else:
        z, weights, log_posterior = lower.z, lower.weights, lower.log_posterior[codeword]

        def gap() -> Tensor:
            log_q = free.q_z1(x).log_prob(z[:, None, None]).squeeze(-1)
            q = log_q.exp()
            return (weights * q * torch.where(q > 0, log_q - log_posterior, 0.0)).sum()

    _minimise(gap, free)
    return free


def _minimise(objective: Callable[[], Tensor], module: nn.Module) -> None:
    """Move a module's parameters to a local minimum; they stay where it was lowest."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        history_size=30,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    lowest, best = float("inf"), [p.detach().clone() for p in parameters]

    def closure() -> Tensor:
        nonlocal lowest, best
        optimizer.zero_grad()
        value = objective()
        value.backward()
        if value.item() < lowest:
            lowest, best = value.item(), [p.detach().clone() for p in parameters]
        return value.detach()

    optimizer.step(closure)
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)


def log_standard_normal(z: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(z)


class _Interpolated:
    """A function given at ascending nodes, linear between them and beyond."""

    def __init__(self, nodes: Tensor, values: Tensor) -> None:
        self.nodes, self.values = nodes, values
        self.slopes = torch.diff(values) / torch.diff(nodes)

    def __call__(self, z: Tensor) -> Tensor:
        at = (torch.searchsorted(self.nodes, z.detach().contiguous()) - 1).clamp(0, len(self.slopes) - 1)
        return self.values[at] + self.slopes[at] * (z - self.nodes[at])


#: Panels of the grids for standard normal noise: of a single latent, of z1 and of z2. They need not be finer than a
#: search asks for, since what it finds is judged on others.
_ONE, _LOWER, _UPPER = 30, 8, 5
#: The noise's mass beyond is 1e-15.
_REACH = 8.0


def _noise_grid(panels: int) -> Grid:
    return Grid(torch.linspace(-_REACH, _REACH, panels + 1, dtype=torch.float64))


def _normal_weights(grid: Grid) -> Tensor:
    return grid.weights * log_standard_normal(grid.nodes).exp()
