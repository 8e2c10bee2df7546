"""Training objectives, each a Pyro ELBO object.

By name: ``elbo``; ``stl``, sticking the landing; ``iwae``, the importance-weighted bound, and ``dreg``, the same with a
doubly reparameterised gradient; ``renyi``, the Rényi bound of order 1/2; ``rws``, reweighted wake-sleep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

from pyro_onebit.internals import AdjustedTraces, OwnWakeSleep, particle_traces, sample_sites
from pyro_onebit.nn import frozen
from pyro_onebit.registry import OBJECTIVES

E = TypeVar("E", bound=Callable[..., ELBO])


class _DetachedDensity(AdjustedTraces):
    """Traces whose log q holds the guide's parameters fixed: only the latents' paths lead to them."""

    def adjust(
        self, model: Any, guide: Any, traces: tuple[Trace, Trace], args: Any, kwargs: Any
    ) -> tuple[Trace, Trace]:
        """The traces, each of the guide's sites with the log q that is differentiated."""
        _, guide_trace = traces
        # The latents keep their path to the parameters; the densities they are put into do not.
        with frozen(unwrap(guide)):
            replayed = poutine.trace(poutine.replay(guide, trace=guide_trace)).get_trace(*args, **kwargs)
        replayed.compute_log_prob()
        for name, site in sample_sites(guide_trace):
            log_q = replayed.nodes[name]["log_prob"]
            site["score_parts"] = site["score_parts"]._replace(entropy_term=log_q)
        return traces


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
            model_trace, guide_trace = particle_traces(self, model, guide, args, kwargs)
        log_p = _row_sums(model_trace, self.num_particles)
        log_q = sum(site["score_parts"].entropy_term for _, site in sample_sites(guide_trace))
        log_w = log_p - log_q.reshape(log_p.shape)
        share = log_w.softmax(0).detach()
        of_guide = {id(p) for p in unwrap(guide).parameters()}
        captured = [site["value"].unconstrained() for site in capture.trace.nodes.values()]
        for in_guide, weight in ((False, share), (True, share.square())):
            parameters = [p for p in captured if p.requires_grad and (id(p) in of_guide) == in_guide]
            if parameters:
                (-(weight * log_w).sum()).backward(inputs=parameters, retain_graph=True)
        return float(-(log_w.detach().logsumexp(0) - math.log(self.num_particles)).sum())


class RowwiseWakeSleep(OwnWakeSleep):
    """Reweighted wake-sleep (Bornschein and Bengio 2015; wake-wake) with weights normalised for each row.

    Pyro's own normalises over particles of the whole batch's joint.
    """

    def losses(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        """The model's loss is the bound; the guide's are its samples' log-densities, weighted."""
        log_p = _row_sums(model_trace, self.num_particles)
        log_q = _row_sums(guide_trace, self.num_particles)
        log_w = log_p - log_q.detach()
        model_loss = -(log_w.logsumexp(0) - math.log(self.num_particles)).sum()
        return model_loss, -(log_w.softmax(0).detach() * log_q).sum()


def _row_sums(trace: Trace, particles: int) -> Tensor:
    """log p of each site, ``(particles, rows)``, summed over sites."""
    total: Tensor = sum(site["log_prob"] for _, site in sample_sites(trace))
    return total.reshape(particles, -1)


@dataclass(frozen=True)
class Objective:
    """What is trained for: a way to make a Pyro ELBO object, and what must be known of it.

    Arguments:
        make: Takes ``num_particles``, ``vectorize_particles`` and ``max_plate_nesting`` to the object.
        pathwise: Whether its gradient follows all the ways by which a sample's weight depends on the guide's
            parameters, so that these may move where the guide's density is zero.
        fewest: The least number of samples for each row.
    """

    make: Callable[..., ELBO]
    pathwise: bool = False
    fewest: int = 1

    def __call__(self, particles: int) -> ELBO:
        """The object for so many samples of the latents for each row, vectorised, for models with one plate."""
        return self.make(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over particles, so that they may be weighted, and need not be independent."""
        return isinstance(self(self.fewest), Trace_ELBO)


def register_objective(name: str, *, pathwise: bool = False, fewest: int = 1) -> Callable[[E], E]:
    """A decorator that makes a Pyro ELBO class known by `name`, to `Config`, the command line and worker processes.

    Arguments: as for `Objective`.

    Raises:
        InputError: If the name is taken, or is not of letters, digits, ``_`` and ``-``.
    """

    def add(make: E) -> E:
        OBJECTIVES.add(name, Objective(make, pathwise, fewest))
        return make

    return add


OBJECTIVES.add("elbo", Objective(Trace_ELBO, pathwise=True))
OBJECTIVES.add("stl", Objective(StickingTheLanding))
OBJECTIVES.add("iwae", Objective(partial(RenyiELBO, alpha=0.0), pathwise=True))
OBJECTIVES.add("renyi", Objective(partial(RenyiELBO, alpha=0.5), pathwise=True))
OBJECTIVES.add("dreg", Objective(DoublyReparameterised))
OBJECTIVES.add("rws", Objective(RowwiseWakeSleep, fewest=2))
