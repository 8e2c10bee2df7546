"""Pyro: how its ELBO objects get at their traces."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.infer import ReweightedWakeSleep
from pyro.infer.elbo import ELBO
from pyro.poutine import Trace
from torch import Tensor

#: The model's and the guide's.
Traces = tuple[Trace, Trace]


def particle_traces(elbo: ELBO, model: Any, guide: Any, args: Any, kwargs: Any) -> Traces:
    """The model's and the guide's trace, all particles in one.

    Relied on: with vectorised particles `ELBO._get_traces` yields one pair, whose log-densities are computed.
    """
    [(model_trace, guide_trace)] = elbo._get_traces(model, guide, args, kwargs)
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> list[tuple[str, Any]]:
    """The sites that have a density: plates announce themselves as sample sites too."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]


class AdjustedTraces(ELBO):
    """An ELBO whose traces are changed before anything is computed from them.

    Relied on: each pair of traces comes from `ELBO._get_trace`.
    """

    def adjust(self, model: Any, guide: Any, traces: Traces, args: Any, kwargs: Any) -> Traces:
        """The model's and the guide's trace as they shall be.

        Arguments:
            model: The model, its particles vectorised.
            guide: The guide, likewise.
            traces: The model's and the guide's trace as drawn.
            args: What the programs were called with.
            kwargs: Likewise, by name.
        """
        raise NotImplementedError

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Traces:
        return self.adjust(model, guide, super()._get_trace(model, guide, args, kwargs), args, kwargs)


class OwnWakeSleep(ReweightedWakeSleep):
    """Wake-sleep with losses of one's own.

    Relied on: `ReweightedWakeSleep._loss` gives the two losses that `loss_and_grads` differentiates.
    """

    def losses(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        """The model's and the guide's loss, nats, summed over rows."""
        raise NotImplementedError

    def _loss(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.losses(*particle_traces(self, model, guide, args, kwargs))
