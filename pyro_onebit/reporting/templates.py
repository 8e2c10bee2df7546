"""The pages' templates."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """Where they are found; what they show is escaped, and what they lack is an error."""
    return Environment(
        loader=PackageLoader("pyro_onebit.reporting", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
