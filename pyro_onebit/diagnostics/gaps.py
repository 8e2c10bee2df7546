r"""Where a guide's gap comes from: its family, its amortisation, and how far the model has bent to meet it.

:math:`\mathrm{KL}(q \,\|\, p) = \mathrm{KL}(q^* \,\|\, p) + \text{rest}`: the approximation gap of the best
member :math:`q^*` of the family, chosen freely for each codeword, and the amortisation gap (Cremer, Li and
Duvenaud 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Normal, constraints

from pyro_onebit.diagnostics.members import SEARCHES, Member, free_parameters, minimise, noise_grid, normal_weights
from pyro_onebit.distributions import sample_from_noise
from pyro_onebit.exact import Joint, Truth
from pyro_onebit.programs import DataLike, Program, base_of
from pyro_onebit.system import progress


@dataclass(frozen=True)
class GapSplit:
    """KL(q(z|x) ‖ p(z|x)) of all latents and its two parts, nats, each of shape ``(M,)``, for each codeword.

    Arguments:
        total: The gap of the guide as it is.
        approximation: That of the best member of its family found for the codeword alone: an upper bound of the
            approximation gap.
        spread: How far apart the best two searches ended: how much their ends hang on where they begin. It is no bound
            on what longer ones would find. Not a number where fewer than two ended in what can be judged.
    """

    total: Tensor
    approximation: Tensor
    spread: Tensor

    @property
    def amortisation(self) -> Tensor:
        """What a member for each codeword would save, at least, shape ``(M,)``."""
        return self.total - self.approximation


def gap_split(model: Any, guide: Any, data: DataLike, truth: Truth, joint: Joint, *, quiet: bool = True) -> GapSplit:
    """Split a guide's gap, by optimising copies of it for each codeword alone.

    A copy that need only please one codeword is a free member of the family, whatever the family is. Several are
    searched for, in different ways, in a bounded number of steps that chance has no part in. Their figures are
    computed anew, on grids of their own; where none is better, the guide as it is stands.

    It does, too, where there is nothing to search, and all of the gap counts as approximation: if the guide is a
    function or has no parameters; with two latents, if one is no known function of noise (`sample_from_noise`), or if
    x hangs on both and has more than 1000 dimensions.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        truth: Their `solve`.
        joint: Their `solve_joint`.
        quiet: Show no progress bar.
    """
    total = joint.kl_forward
    best, spread = total.clone(), torch.full_like(total, torch.nan)
    if not (isinstance(guide, nn.Module) and any(p.requires_grad for p in guide.parameters())):
        return GapSplit(total, best, spread)
    searches = SEARCHES[len(truth.latents)]
    steps = len(total) * sum(map(len, searches))
    with progress(quiet=quiet, total=steps, unit="step") as bar, _out_of_store(guide):
        for codeword in range(len(total)):
            ends: list[float] = []
            for search in searches:
                member = Member(model, guide, data, joint, codeword)
                for step in search if member.can_move else []:
                    # Who knows what a program makes of parameters that a search tries.
                    with suppress(Exception):
                        step(member)
                    bar.update()
                ends += member.judged() if member.can_move else []
            ends.sort()
            best[codeword] = min([float(total[codeword]), *ends])
            if len(ends) > 1:
                spread[codeword] = ends[1] - ends[0]
    return GapSplit(total, best, spread)


@contextmanager
def _out_of_store(guide: Any) -> Iterator[None]:
    """Within, Pyro's store does not hold a module's parameters: a copy of a PyroModule would take them for its own."""
    store, own = pyro.get_param_store(), {id(p) for p in guide.parameters()} if isinstance(guide, nn.Module) else set()
    state: Any = store.get_state()
    kept = {name for name, value in state["params"].items() if id(value) not in own}
    with store.scope({part: {name: held[name] for name in held if name in kept} for part, held in state.items()}):
        yield


def ideal_gap(guide: Any, data: DataLike, truth: Truth) -> float | None:
    """The gap of a family of one-layer guides to the posterior of an ideal threshold decoder, nats per datum.

    That decoder tells each dimension's value by the side of the threshold alone, wrongly as often as suits the
    family best; its posterior is a truncated normal but for the errors. By what a family's gap to its learned
    model is lower than this, the model has given way.

    Arguments:
        guide: Where the search for the family's best member starts.
        data: The codewords.
        truth: Says on which side of which threshold q has them, and whether the prior is standard normal.

    Returns:
        None with two latents, with other than two codewords or another prior; and if the guide's distribution is no
        known function of noise or has no ``cdf``.
    """
    x, probs, standard = data.codewords.double(), data.probs.double(), Normal(0.0, 1.0)
    if len(truth.latents) > 1 or len(probs) != 2:
        return None
    if not torch.allclose(truth.log_prior.exp(), standard.log_prob(truth.z).exp(), rtol=1e-6, atol=1e-12):
        return None
    [latent] = truth.latents
    program = Program("guide", guide, x, {latent: constraints.real})
    q_of = lambda: program.run({}, x, latent)[latent]["fn"]  # noqa: E731
    if not _has_cdf(q_of()):
        return None
    grid = noise_grid(_PANELS)
    threshold, side = float(truth.thresholds[0]), 1 if truth.order[1] == 1 else -1

    def figures() -> tuple[Tensor, Tensor]:
        """The loss of q under its best threshold decoder, and q's gap to that decoder's posterior."""
        q = q_of()
        own = base_of(q)
        below = own.cdf(x.new_full(own.batch_shape, threshold)).reshape(2)
        right = 1.0 - below if side > 0 else below
        # Of codeword and side together; the side of codeword 1 comes second.
        mass = probs[:, None] * torch.stack([1.0 - right, right], 1).clamp(1e-300, 1.0)
        log_share = (mass / mass.sum(0)).log()
        recon = -x.shape[-1] * (mass * log_share).sum()
        shape = (len(grid.nodes), *q.batch_shape, *q.event_shape)
        z = sample_from_noise(q, grid.nodes.reshape(-1, *[1] * (len(shape) - 1)).expand(shape))
        assert z is not None
        kl = normal_weights(grid) @ (q.log_prob(z) - standard.log_prob(z).reshape(-1, 2)) @ probs
        log_evidence = torch.logsumexp(x.shape[-1] * log_share + probs.log(), 1) @ probs
        return recon + kl, recon + kl + log_evidence

    with _out_of_store(guide):
        free = free_parameters(program.program, guide) if isinstance(guide, nn.Module) else []
        minimise(lambda: figures()[0], free)
        with torch.no_grad():
            return float(figures()[1])


#: Panels for the noise of an ideal decoder's latent.
_PANELS = 30


def _has_cdf(q: Any) -> bool:
    try:
        base_of(q).cdf(base_of(q).sample())
    except (AttributeError, NotImplementedError):
        return False
    return sample_from_noise(q, q.sample()) is not None
