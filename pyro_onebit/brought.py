"""Programs that users bring: functions and densities as modules, what is known of them, where they are from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import broadcast_shape
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from pyro_onebit.data import BitsData, make_data
from pyro_onebit.distributions import per_row
from pyro_onebit.errors import InputError
from pyro_onebit.quadrature import refine
from pyro_onebit.registry import RECIPES, REGISTRIES, Registry, origin_of

__all__ = ["ByHand", "DensityGuide", "FunctionProgram", "as_module", "check_known", "name_of", "origins_of"]


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
            store: Any = pyro.get_param_store().get_state()  # as an optimiser sees it: any number will do
        self._transforms: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        for name in trace.param_nodes:
            value = store["params"][name]
            self._keys[name] = name.replace(".", "/")  # a module's own names have no dots
            self._transforms[name] = transform_to(store["constraints"][name])
            own = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            self.register_parameter(self._keys[name], own)

    def forward(self, x: Tensor) -> Any:
        """Run the function on rows x with the parameters that are held."""
        held = {name: transform(getattr(self, self._keys[name])) for name, transform in self._transforms.items()}
        with poutine.substitute(data=held):
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


class DensityGuide(nn.Module):
    """A guide that is a density alone: it can be judged, and has nothing to train.

    Its draws are found by quadrature, by inverting the density's integral.

    Arguments:
        log_prob: Takes values z ``(N,)`` and a codeword x ``(ndims,)``, float64 arrays of NumPy, to the logarithm of
            q(z|x) ``(N,)``, nats, an array of any library. JAX computes in single precision, which leaves figures seven
            digits, unless it is told otherwise (``jax_enable_x64``).
        latent: The latent's name in the model.
        event_dim: Dimensions of the model's events: 1 if its latent is ``(rows, 1)``, 0 if it is ``(rows,)``.
    """

    def __init__(self, log_prob: Callable[[Any, Any], Any], latent: str = "z1", event_dim: int = 1) -> None:
        super().__init__()
        self.log_prob, self.latent, self.event_dim = log_prob, latent, event_dim

    def forward(self, x: Tensor) -> None:
        """Draw the latent given rows x ``(rows, ndims)``."""
        density = _Density(self.log_prob, x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample(self.latent, per_row(density, x.shape[:-1]) if self.event_dim else density)


#: Edges of panels, close around 0 and out to 1490, on which a density is looked for.
_EDGES = torch.arange(-8.0, 8.125, 0.25, dtype=torch.float64).sinh()


class _Density(TorchDistribution):
    """The density of a scalar for each of rows x ``(rows, ndims)``."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, log_prob: Callable[[Any, Any], Any], x: Tensor) -> None:
        # What rows have in common is computed once.
        self.own, (self.words, self.word) = log_prob, x.unique(dim=0, return_inverse=True)
        super().__init__(x.shape[:-1], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Density:
        new = object.__new__(_Density)
        new.own, new.words, new.word = self.own, self.words, self.word.expand(batch_shape)
        TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        return new

    def _at(self, z: Tensor, word: Tensor) -> Tensor:
        """log q(z|x) of one codeword at z ``(N,)``."""
        found = self.own(z.double().numpy(), word.double().numpy())
        return torch.from_numpy(np.array(found, dtype=np.float64)).reshape(z.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.expand(broadcast_shape(value.shape, self.batch_shape))
        result, word = torch.empty_like(value, dtype=torch.float64), self.word.expand(value.shape)
        for i, own in enumerate(self.words):
            result[word == i] = self._at(value[word == i], own)
        return result

    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = torch.empty(self._extended_shape(sample_shape), dtype=torch.float64)
        word = self.word.expand(drawn.shape)
        for i, own in enumerate(self.words):
            grid = refine(lambda z, own=own: self._at(z, own).exp()[:, None], _EDGES).grid  # type: ignore[misc]
            cumulative = grid.cumulative(self._at(grid.nodes, own).exp())
            count = int((word == i).sum())
            drawn[word == i] = grid.invert(cumulative[None], torch.rand(1, count, dtype=torch.float64))[0]
        return drawn


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What identifies a run whose programs were trained by hand, as far as it is known; None is what is not.

    Arguments:
        layers: Latent layers, 1 or 2.
        ndims: Dimensions of x.
        prob: Probability that a bit is 1.
        model: The model's registered name, or else its class's or function's.
        guide: The guide's, likewise.
        objective: What was maximised.
        seed: The seed.
        steps: Steps of the training.
        repeats: In how many dimensions each bit is repeated; None: there is one bit.
    """

    layers: int
    ndims: int
    prob: float
    model: str
    guide: str
    objective: str | None = None
    seed: int | None = None
    steps: int | None = None
    repeats: tuple[int, ...] | None = None

    @property
    def data(self) -> BitsData:
        """The codewords."""
        return make_data(self.repeats or (self.ndims,), self.prob)

    @property
    def bits(self) -> int:
        """The number of bits."""
        return self.data.bits

    def program(self, registry: Registry[Any]) -> nn.Module:
        """The model or the guide, made by its registered name, with parameters of its own.

        Raises:
            InputError: If nothing is registered by that name, or it cannot be made as `build` makes it.
        """
        kind, name = registry.kind, getattr(self, registry.kind)
        if name in registry:
            try:
                arch = replace(RECIPES["default"](self.layers).arch, repeats=self.repeats or ())
                return registry[name](self.ndims, self.prob, arch)
            except Exception as error:  # whatever a class makes of arguments that are not its own
                why = f"cannot be made as {kind}(ndims, prob, arch): {type(error).__name__}"
        else:
            why = "is not registered here"
        raise InputError(
            f"{kind} {name!r} {why}; import what registers it, or give it: load_run(path, model=…, guide=…)"
        )


def name_of(program: Any, registry: Registry[Any]) -> str:
    """A program's registered name, or else its class's or function's."""
    for name, entry in registry.items():
        if type(program) is entry:
            return name
    own = getattr(program, "__name__", type(program).__name__)
    return re.sub(r"[^\w-]+", "_", own).strip("_")


def origins_of(config: Any, programs: Mapping[str, Any]) -> dict[str, str]:
    """Where what a run was made with was written, by name only (`registry.origin_of`); what is this package's is not.

    Arguments:
        config: Whose fields name registered things.
        programs: Programs that may not be registered, by the name of the field.
    """
    written: dict[str, Any] = {}
    for field, registry in REGISTRIES.items():
        if (name := getattr(config, field, None)) in registry:
            written[field] = registry[str(name)]
    for field, program in programs.items():
        written[field] = program.function if isinstance(program, FunctionProgram) else type(program)
    return {field: origin for field, entry in written.items() if (origin := origin_of(entry))}


def check_known(config: Any, origins: Any) -> None:
    """Refuse a configuration, as a file has it, that names what is not registered here.

    Arguments:
        config: Its fields.
        origins: What `origins_of` said of it when it was written.

    Raises:
        InputError: If there is such a name; it says what to import.
    """
    for field, registry in REGISTRIES.items() if isinstance(config, dict) else ():
        name = config.get(field)
        if isinstance(name, str) and name not in registry:
            origin = str(origins.get(field, "")) if isinstance(origins, dict) else ""
            wrote, file = (f" (it was {origin})", origin.partition(".")[0]) if origin else ("", "FILE")
            raise InputError(
                f"{registry.kind} {name!r} is not known here{wrote}; import the file that registers it: in Python, or "
                f"with `onebit --import {file}.py …`"
            )
