"""A function that is a Pyro program, as a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn


@contextmanager
def _leaving_no_trace() -> Iterator[None]:
    """Within, programs see Pyro's store as it is; what they leave in it is gone afterwards, and so are their draws."""
    store = pyro.get_param_store()
    with store.scope(store.get_state()), torch.random.fork_rng(devices=[]):
        yield


class FunctionProgram(nn.Module):
    """A Pyro program that is a function, as a module which holds its parameters.

    What the function gets by ``pyro.param`` is copied as it is in Pyro's store now: what becomes of the store
    afterwards changes nothing here. The parameters of a module that it announces by ``pyro.module`` stay that module's.

    Arguments:
        function: A Pyro program of rows x.
        x: Rows, ``(rows, ndims)``, with which it can be run.
    """

    def __init__(self, function: Callable[[Tensor], Any], x: Tensor) -> None:
        super().__init__()
        self.function = function
        with _leaving_no_trace(), torch.no_grad():
            trace = poutine.trace(function).get_trace(x)
        self._keys: dict[str, str] = {}
        for name in trace.param_nodes:
            value = trace.nodes[name]["value"]
            self._keys[name] = name.replace(".", "/")  # a module's own names have no dots
            own = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            self.register_parameter(self._keys[name], own)

    def forward(self, x: Tensor) -> Any:
        """Run the function on rows x with the parameters that are held."""
        with poutine.substitute(data={name: getattr(self, key) for name, key in self._keys.items()}):
            return self.function(x)


def as_module(program: Any, x: Tensor) -> nn.Module:
    """A Pyro program as a module that has its parameters: a function's, or those that a module makes when it is run.

    Arguments:
        program: A module, or a function.
        x: Rows, ``(rows, ndims)``, with which it can be run.
    """
    if not isinstance(program, nn.Module):
        return FunctionProgram(program, x)
    if not program.state_dict():
        with _leaving_no_trace():
            program(x)
    return program
