"""Modules that are Pyro programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
from torch import nn

from pyro_onebit.nn.architecture import Start
from pyro_onebit.nn.network import Network

_instances = itertools.count()


class Program(nn.Module):
    """A module whose parameters enter Pyro's store under a name that no other instance shares.

    Pyro identifies parameters by name, so two models of one class would share, or silently stop
    training, each other's parameters. Every instance, copies included, gets a name of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._store_name = self._new_name()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(dict(state))
        self._store_name = self._new_name()

    def _new_name(self) -> str:
        return f"{type(self).__name__}-{next(_instances)}"

    def register(self) -> None:
        """Announce the parameters to Pyro, unless they are frozen; called first in each run of the program."""
        if any(p.requires_grad for p in self.parameters()):
            pyro.module(self._store_name, self)

    def reset_parameters(self, start: Start, prob: float) -> None:
        """Redraw the initial weights and set the skips, here and in every network within."""
        for module in self.modules():
            if isinstance(module, Network):
                module.reset_parameters(start, prob)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, the module computes with detached parameters (`functional_call` refuses to be traced)."""
    held = [(child, dict(child._parameters)) for child in module.modules()]
    for child, parameters in held:
        child._parameters.update({name: p.detach() for name, p in parameters.items() if p is not None})  # type: ignore[misc]
    try:
        yield
    finally:
        for child, parameters in held:
            child._parameters.update(parameters)
