"""What a table of runs says, in three sentences that are made from its numbers."""

from __future__ import annotations

import pandas as pd

from pyro_onebit.plots import LAYER_NAMES


def findings(table: pd.DataFrame) -> list[str]:
    """Where the latent is used, and how far from the entropy the losses end; of several seeds the worst.

    Of more than two kinds of guides there are the one that ends closest to the entropy, and the one that ends farthest.

    Arguments:
        table: A study's or a comparison's runs.

    Returns:
        At most three sentences; none of an empty table.
    """
    if table.empty:
        return []
    table = table.assign(
        gap=table["loss"] - table["entropy"],
        above=table["loss"] - table["optimum"].astype(float),
        share=table["mutual_information"] / table["entropy"],
    )
    kinds = {str(guide): own for guide, own in table.groupby("guide", sort=False)}
    ranked = sorted(kinds, key=lambda guide: float(kinds[guide]["gap"].max()))
    told = list(kinds) if len(kinds) <= 2 else [ranked[0], ranked[-1]]
    return [_use(table), *(_cost(guide, kinds[guide]) for guide in told)]


def _use(table: pd.DataFrame) -> str:
    """At which numbers of dimensions every run's latent holds at least half of the bit, and at which none does."""
    shares = table.groupby("ndims")["share"]
    least, most = shares.min(), shares.max()
    unused, used = [n for n in most.index if most[n] < 0.5], [n for n in least.index if least[n] >= 0.5]
    parts = []
    if unused:
        parts.append(f"is unused at n = {_listed(unused)} (it carries at most {_share(most[unused].max())} of the bit)")
    if used:
        parts.append(f"is used at n = {_listed(used)} (it carries at least {_share(least[used].min())} of the bit)")
    mixed = [n for n in least.index if n not in unused and n not in used]
    if mixed:
        parts.append(f"is used by some runs and not by others at n = {_listed(mixed)}")
    return f"The latent {', and '.join(parts)}."


def _cost(guide: str, own: pd.DataFrame) -> str:
    """How far one kind's runs end from the entropy, and from the lowest loss of the family."""
    worst = own.sort_values("gap").iloc[-1]
    layers = " or ".join(LAYER_NAMES[count] for count in sorted(set(own["layers"])))
    sentence = (
        f"With {layers} (guide {guide}) a datum costs up to {worst['gap']:.4f} nats more than the entropy, at n = "
        f"{worst['ndims']}"
    )
    above = own["above"].max()
    if (own["optimum"] - own["entropy"]).max() > 1e-6:
        return f"{sentence}; no decoder comes more than {max(above, 0.0):.1g} nats lower with such a guide."
    return f"{sentence}."


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _share(part: float) -> str:
    """In per cent; of a small one its first digit."""
    return f"{part:.1%}" if part >= 1e-3 else f"{max(100.0 * part, 0.0):.0g}%"
