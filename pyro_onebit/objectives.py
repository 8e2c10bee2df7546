"""Names of training objectives, each a Pyro ELBO object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import unwrap
from torch import nn

__all__ = ["OBJECTIVES", "StickingTheLanding", "drawn", "make_objective"]


class StickingTheLanding(Trace_ELBO):
    r"""The ELBO with the guide's parameters detached inside :math:`\log q`.

    What is dropped from the gradient has expectation zero, and what is left is zero, sample by
    sample, when q is the exact posterior (Roeder, Wu and Duvenaud 2017). The loss is the ELBO's.
    The guide is an ``nn.Module`` that reads the parameters it holds, and is reparameterised.
    """

    def _get_trace(self, model: nn.Module, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        # The latents keep their path to the parameters; the densities they are put into do not.
        with _frozen(unwrap(guide)):
            replayed = poutine.trace(poutine.replay(guide, trace=guide_trace)).get_trace(*args, **kwargs)
        replayed.compute_log_prob()
        for name, site in drawn(guide_trace):
            log_q = replayed.nodes[name]["log_prob"]
            site["score_parts"] = site["score_parts"]._replace(entropy_term=log_q)
        return model_trace, guide_trace


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """The module computes with detached parameters (`functional_call` refuses to be traced)."""
    held = [(child, dict(child._parameters)) for child in module.modules()]
    for child, parameters in held:
        child._parameters.update({name: p.detach() for name, p in parameters.items() if p is not None})  # type: ignore[misc]
    try:
        yield
    finally:
        for child, parameters in held:
            child._parameters.update(parameters)


#: What `--objective` accepts.
OBJECTIVES: dict[str, type[Trace_ELBO]] = {"elbo": Trace_ELBO, "stl": StickingTheLanding}


def make_objective(name: str, particles: int) -> Trace_ELBO:
    """The ELBO object of a name, its particles vectorised, for models with one plate.

    Arguments:
        name: A key of `OBJECTIVES`.
        particles: Samples of the latents for each row.
    """
    return OBJECTIVES[name](num_particles=particles, vectorize_particles=True, max_plate_nesting=1)


def drawn(trace: Trace) -> list[tuple[str, Any]]:
    """The sites that have a density: plates announce themselves as sample sites too."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]
