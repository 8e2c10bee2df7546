"""Pyro's automatic guides that are no amortised posteriors, refused by name."""

from __future__ import annotations

from typing import Any

from pyro.infer.autoguide import AutoContinuous, AutoDelta

from pyro_onebit.errors import ProgramError


def check_autoguide(program: Any) -> None:
    """Refuse an automatic guide whose latents have no density, or hang together from row to row.

    Raises:
        ProgramError: If it is one.
    """
    name = type(program).__name__
    if isinstance(program, AutoDelta):
        raise ProgramError(f"{name} gives each latent a point, which has no density; take AutoNormal")
    if isinstance(program, AutoContinuous):
        raise ProgramError(
            f"{name} draws all rows' latents together, as one vector; a row's latent must have a density of its own: "
            f"take AutoNormal"
        )
