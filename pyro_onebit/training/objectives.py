"""Training objectives, each a Pyro ELBO object.

By name: ``elbo``; ``stl``, sticking the landing; ``iwae``, the importance-weighted bound, and ``dreg``, the same with a
doubly reparameterised gradient; ``renyi``, the Rényi bound of order 1/2; ``rws``, reweighted wake-sleep; ``beta``, the
ELBO with twice the KL term; ``annealed``, with the KL term warmed up; ``free_bits``, with one nat of it free.

An objective with a method ``set_step(step, steps)`` has a schedule: it is called before each step, also where a
training is resumed, with the step's number from 0 and how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

from pyro_onebit.errors import InputError
from pyro_onebit.internals import AdjustedTraces, OwnWakeSleep, Traces, particle_traces, sample_sites
from pyro_onebit.nn import frozen
from pyro_onebit.registry import OBJECTIVES

E = TypeVar("E", bound=Callable[..., ELBO])


class _DetachedDensity(AdjustedTraces):
    """Traces whose log q holds the guide's parameters fixed: only the latents' paths lead to them."""

    def adjust(self, model: Any, guide: Any, traces: Traces, args: Any, kwargs: Any) -> Traces:
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


class BetaELBO(AdjustedTraces, Trace_ELBO):
    r"""The ELBO with its KL terms multiplied by a weight (Higgins et al. 2017).

    Arguments:
        beta: The weight.
    """

    def __init__(self, *args: Any, beta: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A tensor, since a step that is recorded sees what becomes of it.
        self.weight = torch.tensor(beta)

    def adjust(self, model: Any, guide: Any, traces: Traces, args: Any, kwargs: Any) -> Traces:
        """The traces, with the latents' log-densities multiplied by the weight."""
        return _with_latents_scaled(traces, self.weight)


class AnnealedELBO(BetaELBO):
    """The ELBO with its KL terms' weight growing linearly from 0 to 1 (Bowman et al. 2016; Sønderby et al. 2016).

    Arguments:
        warm_up: The share of all steps after which the weight is 1.
    """

    def __init__(self, *args: Any, warm_up: float, **kwargs: Any) -> None:
        super().__init__(*args, beta=1.0, **kwargs)
        self.warm_up = warm_up

    def set_step(self, step: int, steps: int) -> None:
        """Set the weight of a step."""
        self.weight.fill_(min(1.0, step / (self.warm_up * steps)))


class FreeBitsELBO(AdjustedTraces, Trace_ELBO):
    r"""The ELBO with :math:`\max(\lambda, \mathrm{KL})` in place of the KL term (Kingma et al. 2016).

    The KL term is that of all latents together, averaged over the data: with two latents the term of one alone may be
    negative. Below :math:`\lambda` it has no gradient.

    Arguments:
        free: :math:`\lambda`, nats per datum.
    """

    def __init__(self, *args: Any, free: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.free = free

    def adjust(self, model: Any, guide: Any, traces: Traces, args: Any, kwargs: Any) -> Traces:
        """The traces, with constants for the latents' log-densities where the KL term is below what is free."""
        model_trace, guide_trace = traces
        sites = sample_sites(guide_trace)
        _, site = sites[0]
        kl = sum(own["log_prob_sum"] - model_trace.nodes[name]["log_prob_sum"] for name, own in sites).detach()
        # How often data count: rows times particles, or the weights of both.
        count = (site["scale"] * torch.ones_like(site["log_prob"])).sum()
        counts = (kl > self.free * count).to(kl.dtype)
        _with_latents_scaled(traces, counts)
        site["log_prob_sum"] = site["log_prob_sum"] + (1.0 - counts) * self.free * count
        return traces


def _with_latents_scaled(traces: Traces, factor: Tensor) -> Traces:
    """The model's and the guide's trace, in place, with every latent's log-densities multiplied by a factor."""
    model_trace, guide_trace = traces
    for name, site in sample_sites(guide_trace):
        for own in (site, model_trace.nodes[name]):
            own.update({key: factor * own[key] for key in ("log_prob", "log_prob_sum")})
        parts = site["score_parts"]
        site["score_parts"] = parts._replace(entropy_term=factor * parts.entropy_term)
    return traces


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
        recorded: Whether it is a `Trace_ELBO` with losses that it does not override, whose traces are the same
            function of the programs at each step, but for tensors of its own that `set_step` fills. Then the default
            recipes train it on a lattice of weighted particles, by a step that is recorded once. Any other one is
            honoured as it is: evaluated at each step, on rows with independent samples.
    """

    make: Callable[..., ELBO]
    pathwise: bool = False
    fewest: int = 1
    recorded: bool = False

    def __call__(self, particles: int) -> ELBO:
        """The object for so many samples of the latents for each row, vectorised, for models with one plate."""
        return self.make(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)


def _check_objective(name: str, objective: Objective) -> None:
    try:
        elbo = objective(objective.fewest)
    except Exception as error:  # whatever a user's class raises
        raise InputError(f"objective {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(elbo, ELBO):
        raise InputError(f"objective {name!r} makes a {type(elbo).__name__}; it must make a Pyro ELBO")
    own = {key for base in type(elbo).__mro__ if not base.__module__.startswith("pyro.") for key in vars(base)}
    if objective.recorded and (not isinstance(elbo, Trace_ELBO) or own & {"loss", *_GRADIENTS}):
        raise InputError(
            f"objective {name!r} has a loss of its own, which a recorded step would not see; leave `recorded`"
        )
    if "loss" in own and not own & (_GRADIENTS | _TRACES):
        raise InputError(
            f"objective {name!r} overrides loss alone, which Pyro only reports; gradients come from loss_and_grads or "
            f"differentiable_loss"
        )


#: What gives an ELBO its gradient, and its traces.
_GRADIENTS = {"loss_and_grads", "differentiable_loss", "_differentiable_loss_particle", "_loss"}
_TRACES = {"_get_trace", "_get_traces", "_get_vectorized_trace"}
OBJECTIVES.check = _check_objective


def register_objective(
    name: str, *, pathwise: bool = False, fewest: int = 1, recorded: bool = False
) -> Callable[[E], E]:
    """A decorator that makes a Pyro ELBO class known by `name`, to `Config`, the command line and worker processes.

    Arguments: as for `Objective`.

    Raises:
        InputError: If the name is taken, or is not of letters, digits, ``_`` and ``-``; or if the class cannot be
            honoured: it is no ELBO, or overrides what no gradient comes from.
    """

    def add(make: E) -> E:
        OBJECTIVES.add(name, Objective(make, pathwise, fewest, recorded))
        return make

    return add


OBJECTIVES.add("elbo", Objective(Trace_ELBO, pathwise=True, recorded=True))
OBJECTIVES.add("stl", Objective(StickingTheLanding, recorded=True))
OBJECTIVES.add("iwae", Objective(partial(RenyiELBO, alpha=0.0), pathwise=True))
OBJECTIVES.add("renyi", Objective(partial(RenyiELBO, alpha=0.5), pathwise=True))
OBJECTIVES.add("dreg", Objective(DoublyReparameterised))
OBJECTIVES.add("rws", Objective(RowwiseWakeSleep, fewest=2))
OBJECTIVES.add("beta", Objective(partial(BetaELBO, beta=2.0), pathwise=True, recorded=True))
OBJECTIVES.add("annealed", Objective(partial(AnnealedELBO, warm_up=0.25), pathwise=True, recorded=True))
OBJECTIVES.add("free_bits", Objective(partial(FreeBitsELBO, free=1.0), pathwise=True, recorded=True))
