"""Programs that a user may bring, each with what is true of it."""

from __future__ import annotations

from programs.building import Case, one
from programs.built import own
from programs.families import gaussian
from programs.one_latent import decoders, guides, priors
from programs.refusals import refusals, with_parameter
from programs.two_latents import two_layers
from programs.ways import ways

__all__ = ["Case", "all_cases"]


def all_cases() -> list[Case]:
    """Every case, by section."""
    far = one(
        "a mean of 1e30",
        gaussian(1.0, 1e30),
        decoder=lambda z, m: 0.0 * z,
        how="quadrature in SciPy",
        guide=lambda: with_parameter(1e30, "mean"),
    )
    sections = {
        "guide": guides(),
        "prior": priors(),
        "decoder": decoders(),
        "program": [*ways(), far],
        "two": two_layers(),
        "own": own(),
        "refuse": refusals(),
    }
    return [
        Case(f"{section}: {case.name}", case.make, case.right, case.how, case.tolerance)
        for section, cases in sections.items()
        for case in cases
    ]
