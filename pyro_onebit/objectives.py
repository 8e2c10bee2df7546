"""Names of training objectives, each a Pyro ELBO object."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from pyro import poutine
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

from pyro_onebit.networks import frozen

__all__ = [
    "OBJECTIVES",
    "PATHWISE",
    "DoublyReparameterised",
    "RowwiseWakeSleep",
    "StickingTheLanding",
    "drawn",
    "is_mean",
    "make_objective",
]


class _DetachedDensity(ELBO):
    """Traces whose log q holds the guide's parameters fixed: only the latents' paths lead to them."""

    def _get_trace(self, model: nn.Module, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        # The latents keep their path to the parameters; the densities they are put into do not.
        with frozen(unwrap(guide)):
            replayed = poutine.trace(poutine.replay(guide, trace=guide_trace)).get_trace(*args, **kwargs)
        replayed.compute_log_prob()
        for name, site in drawn(guide_trace):
            log_q = replayed.nodes[name]["log_prob"]
            site["score_parts"] = site["score_parts"]._replace(entropy_term=log_q)
        return model_trace, guide_trace


class StickingTheLanding(_DetachedDensity, Trace_ELBO):
    r"""The ELBO with the guide's parameters detached inside :math:`\log q`.

    What is dropped from the gradient has expectation zero, and what is left is zero, sample by
    sample, when q is the exact posterior (Roeder, Wu and Duvenaud 2017). The loss is the ELBO's.
    The guide is an ``nn.Module`` that reads the parameters it holds, and is reparameterised.
    """


class DoublyReparameterised(_DetachedDensity, RenyiELBO):
    r"""The importance-weighted bound with a gradient that does not die out as K grows.

    The model's gradient is :math:`\sum_k \tilde w_k \nabla_\theta \ln w_k`, the guide's
    :math:`\sum_k \tilde w_k^2 \, \partial_z \ln w_k \nabla_\phi z_k` with normalised weights
    :math:`\tilde w` (Tucker, Lawson, Gu and Maddison 2019). Particles must be vectorised, and the guide an
    ``nn.Module`` that reads the parameters it holds, and is reparameterised.
    """

    def loss_and_grads(self, model: nn.Module, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Add to each parameter's gradient; return the loss, summed over rows, nats."""
        with poutine.trace(param_only=True) as capture:
            [(model_trace, guide_trace)] = self._get_traces(model, guide, args, kwargs)
        log_p = _row_sums(model_trace, self.num_particles)
        log_q = sum(site["score_parts"].entropy_term for _, site in drawn(guide_trace))
        log_w = log_p - log_q.reshape(log_p.shape)
        share = log_w.softmax(0).detach()
        of_guide = {id(p) for p in unwrap(guide).parameters()}
        captured = [site["value"].unconstrained() for site in capture.trace.nodes.values()]
        for in_guide, weight in ((False, share), (True, share.square())):
            parameters = [p for p in captured if p.requires_grad and (id(p) in of_guide) == in_guide]
            if parameters:
                (-(weight * log_w).sum()).backward(inputs=parameters, retain_graph=True)
        return float(-(log_w.detach().logsumexp(0) - math.log(self.num_particles)).sum())


class RowwiseWakeSleep(ReweightedWakeSleep):
    """Reweighted wake-sleep (Bornschein and Bengio 2015; wake-wake) with weights normalised for each row.

    Pyro's own normalises over particles of the whole batch's joint.
    """

    def _loss(self, model: nn.Module, guide: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        [(model_trace, guide_trace)] = self._get_traces(model, guide, args, kwargs)
        log_p = _row_sums(model_trace, self.num_particles)
        log_q = _row_sums(guide_trace, self.num_particles)
        log_w = log_p - log_q.detach()
        model_loss = -(log_w.logsumexp(0) - math.log(self.num_particles)).sum()
        return model_loss, -(log_w.softmax(0).detach() * log_q).sum()


def _row_sums(trace: Trace, particles: int) -> Tensor:
    """log p of each site, ``(particles, rows)``, summed over sites."""
    total: Tensor = sum(site["log_prob"] for _, site in drawn(trace))
    return total.reshape(particles, -1)


#: What `--objective` accepts.
OBJECTIVES: dict[str, Callable[..., ELBO]] = {
    "elbo": Trace_ELBO,
    "stl": StickingTheLanding,
    "iwae": partial(RenyiELBO, alpha=0.0),
    "renyi": partial(RenyiELBO, alpha=0.5),
    "dreg": DoublyReparameterised,
    "rws": RowwiseWakeSleep,
}
#: Those that follow all the ways by which a sample's weight depends on the guide's parameters.
PATHWISE = ("elbo", "iwae", "renyi")


def is_mean(name: str) -> bool:
    """Whether an objective is a mean over particles, so that they may be weighted, and need not be independent."""
    return isinstance(make_objective(name, 2), Trace_ELBO)


def make_objective(name: str, particles: int) -> ELBO:
    """The ELBO object of a name, its particles vectorised, for models with one plate.

    Arguments:
        name: A key of `OBJECTIVES`: ``elbo``; ``stl``, sticking the landing; ``iwae``, the importance-weighted
            bound, and ``dreg``, the same with a doubly reparameterised gradient; ``renyi``, the Rényi bound of
            order 1/2; ``rws``, reweighted wake-sleep.
        particles: Samples of the latents for each row; ``rws`` needs two.
    """
    return OBJECTIVES[name](num_particles=particles, vectorize_particles=True, max_plate_nesting=1)


def drawn(trace: Trace) -> list[tuple[str, Any]]:
    """The sites that have a density: plates announce themselves as sample sites too."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]
