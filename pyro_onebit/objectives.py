"""Names of training objectives, each a Pyro ELBO object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, JitTrace_ELBO, Trace_ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

__all__ = ["OBJECTIVES", "JitStickingTheLanding", "StickingTheLanding", "loss_terms", "make_objective"]


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
        for name, site in _drawn(guide_trace):
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


class JitStickingTheLanding(StickingTheLanding, JitTrace_ELBO):
    """`StickingTheLanding`, traced once and then run without Python."""


#: What `--objective` accepts: each objective, and the same compiled.
OBJECTIVES: dict[str, tuple[type[ELBO], type[ELBO]]] = {
    "elbo": (Trace_ELBO, JitTrace_ELBO),
    "stl": (StickingTheLanding, JitStickingTheLanding),
}


def make_objective(name: str, particles: int, *, jit: bool) -> ELBO:
    """The ELBO object of a name, its particles vectorised, for models with one plate.

    Arguments:
        name: A key of `OBJECTIVES`.
        particles: Samples of the latents for each row.
        jit: Whether it is traced once; never used for two models.
    """
    options = {"ignore_jit_warnings": True} if jit else {}
    return OBJECTIVES[name][jit](num_particles=particles, vectorize_particles=True, max_plate_nesting=1, **options)


@torch.no_grad()
def loss_terms(elbo: ELBO, model: nn.Module, guide: nn.Module, x: Tensor) -> dict[str, float]:
    """An estimate of ``recon, kl1`` (and ``kl2``), nats, summed over rows; they sum to the loss.

    The model and guide run as `elbo` runs them, but the objective is the plain ELBO's.
    """
    plain = Trace_ELBO(elbo.num_particles, vectorize_particles=True, max_plate_nesting=1)
    [(model_trace, guide_trace)] = plain._get_traces(model, guide, (x,), {})
    log_p = {name: float(site["log_prob_sum"]) for name, site in _drawn(model_trace)}
    log_q = {name: float(site["log_prob_sum"]) for name, site in _drawn(guide_trace)}
    terms = {"recon": -log_p["x"]} | {name.replace("z", "kl"): log_q[name] - log_p[name] for name in sorted(log_q)}
    return {name: value / elbo.num_particles for name, value in terms.items()}


def _drawn(trace: Trace) -> list[tuple[str, Any]]:
    """The sites that have a density: plates announce themselves as sample sites too."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]
