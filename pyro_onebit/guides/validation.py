"""Whether a guide, perhaps a user's own, goes with the model that it is to be trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_onebit.errors import GuideError
from pyro_onebit.exact import sample_sites

_SAMPLES = 3


def check_guide(name: str, guide: Any, x: Tensor, layers: int) -> None:
    """Refuse a guide that does not go with its model, or that cannot be judged, in words about that guide.

    Arguments:
        name: What the guide is called.
        guide: A program of rows x, with ``q_z1(x)`` and, with two layers, ``q_z2(z1)``.
        x: The codewords.
        layers: The model's latents are z1 and, with two layers, z2.

    Raises:
        GuideError: If the guide fails, if its sites are not the model's latents, or a shape is not right.
    """
    conditionals: dict[str, Callable[[], Any]] = {"z1": lambda: guide.q_z1(x)}
    if layers == 2:
        conditionals["z2"] = lambda: guide.q_z2(guide.q_z1(x).sample())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.get_param_store().scope():
            events = {latent: tuple(conditional().event_shape) for latent, conditional in conditionals.items()}
            sites = {site: tuple(value["log_prob"].shape) for site, value in sample_sites(_trace(guide, x))}
            shapes = {latent: _shape_of_samples(conditional()) for latent, conditional in conditionals.items()}
    except Exception as error:  # whatever a user's program raises
        [reason, *_] = [*str(error).splitlines(), ""]
        raise GuideError(f"guide {name!r} fails on the two codewords: {type(error).__name__}: {reason}") from error
    if set(sites) != set(conditionals):
        raise GuideError(
            f"guide {name!r} draws {', '.join(sorted(sites)) or 'nothing'}, and its model {', '.join(conditionals)}; "
            f"it must have a site of the same name for each latent"
        )
    for latent, event in events.items():
        if event != (1,):
            raise GuideError(f"guide {name!r}: q_{latent} has events of shape {event}; they must be of shape (1,)")
    for what, found, right in (("a site", sites, (2,)), (f"{_SAMPLES} samples", shapes, (_SAMPLES, 2))):
        for latent, shape in found.items():
            if shape != right:
                raise GuideError(
                    f"guide {name!r}: log_prob of {what} of {latent} on two rows has shape {shape}; it must be "
                    f"{right}: draw it in a plate over the rows"
                )


def is_reparameterised(guide: nn.Module, x: Tensor) -> bool:
    """Whether gradients pass through all of a guide's samples."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.get_param_store().scope():
        return all(site["fn"].has_rsample for _, site in sample_sites(_trace(guide, x)))


def _trace(program: nn.Module, x: Tensor) -> poutine.Trace:
    trace = poutine.trace(program).get_trace(x)
    trace.compute_log_prob()
    return trace


def _shape_of_samples(conditional: Any) -> tuple[int, ...]:
    return tuple(conditional.log_prob(conditional.sample((_SAMPLES,))).shape)
