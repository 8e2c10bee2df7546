"""Programs that a user may bring, each with what is true of it."""

from __future__ import annotations

from dataclasses import replace

from programs.building import Case
from programs.built import own
from programs.one_latent import decoders, guides, priors
from programs.refusals import refusals
from programs.two_latents import two_layers
from programs.ways import ways

__all__ = ["Case", "all_cases"]


def all_cases() -> list[Case]:
    """Every case, by section."""
    sections = {
        "guide": guides(),
        "prior": priors(),
        "decoder": decoders(),
        "program": ways(),
        "two": two_layers(),
        "own": own(),
        "refuse": refusals(),
    }
    return [replace(case, name=f"{section}: {case.name}") for section, cases in sections.items() for case in cases]
