"""Programs as they are: a model and a guide run under Pyro's handlers, one site at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, TransformedDistribution, Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.overrides import TorchFunctionMode

from pyro_onebit.errors import ProgramError
from pyro_onebit.programs.conditional import Conditional, support_of
from pyro_onebit.reproducibility import default_dtype

#: Latents by name, each of shape ``(draws, M)``: a value for each draw and each codeword.
Latents = dict[str, Tensor]
#: Where latents may lie, by name.
Supports = Mapping[str, constraints.Constraint]


def float64_copy(program: Any) -> Any:
    """A copy of a module in float64 and in evaluation mode; a function is returned as it is.

    Raises:
        ArithmeticError: If a parameter is not finite.
    """
    if not isinstance(program, nn.Module):
        return program
    if not all(torch.isfinite(p).all() for p in program.parameters()):
        raise ArithmeticError(f"a parameter of {type(program).__name__} is not finite")
    with _CopyAll():
        return copy.deepcopy(program).double().eval()


class _CopyAll(TorchFunctionMode):
    """Copies what torch refuses to: results that a module has kept, and that know how they were computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = (args[0].detach(), *args[1:])
        return func(*args, **(kwargs or {}))


_SINGLE = frozenset((torch.float32, torch.float16, torch.bfloat16))


class _Float64(TorchFunctionMode):
    """Operations take what single precision they meet in double: the modules that a function closes over, say."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Seldom, and asked first: this is called at every operation.
        has_single = any(map(_is_single, args)) or any(map(_is_single, kwargs.values()))
        # What writes into a tensor, or asks for one of its attributes, means that very tensor.
        if has_single and not getattr(func, "__name__", "").endswith("_") and "out" not in kwargs:
            args = tuple(map(_doubled, args))
            kwargs = {key: _doubled(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _is_single(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype in _SINGLE
    return type(value) in (tuple, list) and any(map(_is_single, value))


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _SINGLE else value
    if type(value) in (tuple, list):
        return type(value)(map(_doubled, value))
    return value


class _Reached(BaseException):
    """A site is reached that the run was for."""


class _Sites(Messenger):
    """Notes each sample site that has a density; ends the run at the one named `until`.

    Pyro's `AutoNormal` draws ``z_unconstrained`` and then z as the point that it is carried to. Here z has the density
    that this makes; `supports` say by which transform.
    """

    def __init__(self, until: str | None, supports: Supports) -> None:
        super().__init__()
        self.until, self.supports = until, supports
        self.sites: dict[str, Any] = {}
        self._unconstrained: dict[str, Any] = {}

    def _pyro_sample(self, message: Any) -> None:
        if poutine.util.site_is_subsample(message):
            return
        name = message["name"]
        if message["infer"].get("is_auxiliary") and name.removesuffix("_unconstrained") in self.supports:
            self._unconstrained[name.removesuffix("_unconstrained")] = message["fn"]
            return
        if name in self._unconstrained:
            message["fn"] = TransformedDistribution(self._unconstrained[name], biject_to(self.supports[name]))
        self.sites[name] = message
        if name == self.until:
            raise _Reached


@contextmanager
def as_it_is() -> Iterator[None]:
    """Within, programs see Pyro's store as it is and compute in float64; what they leave in it is gone afterwards."""
    store = pyro.get_param_store()
    with ExitStack() as stack:
        stack.enter_context(store.scope(store.get_state()))
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(default_dtype(torch.float64))
        stack.enter_context(_Float64())
        yield


class Program:
    """A Pyro program of rows x, in float64, and how it can be run for many values of its latents.

    Arguments:
        what: What messages call it.
        program: A module, or a function.
        x: The codewords, ``(M, n)``, float64.
        supports: Of a guide, where the model's latents may lie.

    Raises:
        ProgramError: If the program cannot be judged; the message says why.
        ArithmeticError: If a parameter is not finite.
    """

    #: Whether values of many latents may stand in leading dimensions; else each has a row of its own.
    leading: bool = True
    #: Whether it runs on a codeword alone.
    splits: bool = True

    def __init__(self, what: str, program: Any, x: Tensor, supports: Supports | None = None) -> None:
        self.what, self.program, self.x, self._supports = what, float64_copy(program), x, supports or {}
        if isinstance(self.program, nn.Module):
            # So that a program need not announce its parameters to Pyro each time that it is run.
            self.program.requires_grad_(False)
        try:
            # To look at a program must not change what is drawn afterwards.
            with torch.random.fork_rng(devices=[]):
                sites = self._run(x, {}, None)
            self.log_probs = {name: site["fn"].log_prob(site["value"]) for name, site in sites.items()}
        except Exception as error:  # whatever a user's program raises
            [reason, *_] = [*str(error).splitlines(), ""]
            raise ProgramError(f"the {what} fails on the codewords: {type(error).__name__}: {reason}") from error
        self.sites = sites
        self.latents = tuple(name for name, site in sites.items() if not site["is_observed"])
        self.observed = tuple(name for name in sites if name not in self.latents)
        for name, site in sites.items():
            self._check(name, site)
        self.events = {name: len(sites[name]["fn"].event_shape) for name in self.latents}
        self.supports = {name: support_of(sites[name]["fn"]) for name in self.latents}

    def _check(self, name: str, site: Any) -> None:
        rows, fn, where = len(self.x), site["fn"], f"site {name!r} of the {self.what}"
        if isinstance(fn, Unit):
            raise ProgramError(f"{where} is a factor; what is no density cannot be judged")
        if site["scale"] not in (1, 1.0) or site["mask"] is not None:
            raise ProgramError(f"{where} is scaled or masked; its density must count once")
        frames = [(frame.dim, frame.size) for frame in site["cond_indep_stack"] if frame.vectorized]
        if len(frames) != len(site["cond_indep_stack"]) or frames not in ([(-1, rows)], []):
            raise ProgramError(f"{where} stands in plates other than one over the rows, at dim -1; it must have one")
        if name in self.latents:
            if isinstance(getattr(fn, "base_dist", fn), Delta):
                raise ProgramError(f"{where} is a point (Delta); a point has no density")
            if getattr(support_of(fn), "is_discrete", False):
                raise ProgramError(f"{where} is discrete; latents must be continuous")
            if tuple(fn.event_shape) not in ((), (1,)):
                raise ProgramError(f"{where} has events of shape {tuple(fn.event_shape)}; latents must be scalar")
        shape = tuple(self.log_probs[name].shape)
        if shape != (rows,) or not frames:
            raise ProgramError(
                f"log_prob of {where} on {rows} rows has shape {shape}; it must be ({rows},), a value for each row: "
                f"draw it in a plate over the rows"
            )

    def _run(self, x: Tensor, values: Mapping[str, Tensor], until: str | None) -> dict[str, Any]:
        handler = _Sites(until, self._supports)
        try:
            with as_it_is(), handler, poutine.condition(data=dict(values)):
                self.program(x)
        except _Reached:
            pass
        return handler.sites

    def run(self, values: Latents, x: Tensor, until: str | None = None) -> dict[str, Any]:
        """The sites, given values ``(N, 1 or m)`` for some latents and codewords x ``(m, n)``, up to the one named."""
        placed = {}
        for name, value in values.items():
            own = value if self.leading else value.expand(len(value), len(x)).flatten()
            placed[name] = own[..., None] if self.events[name] else own
        if not self.leading and values:
            count = len(next(iter(values.values())))
            x = x.expand(count, *x.shape).flatten(0, 1) if len(x) > 1 else x.expand(count, -1)
        return self._run(x, placed, until)

    def conditional(self, name: str, given: Latents, *, alone: bool = False) -> Conditional:
        """A latent's distribution, given values ``(N, 1 or M)`` of latents drawn before it.

        Arguments:
            name: The latent.
            given: The values.
            alone: Whether only the first codeword is asked for: which x is run makes no difference.
        """
        conditions = len(next(iter(given.values()))) if given else 1
        words = [slice(0, 1)] if alone else [slice(c, c + 1) for c in range(len(self.x))]
        if not self.splits:
            words = [slice(0, len(self.x))]
        parts = []
        for word in words:
            own = {key: value if value.shape[-1] == 1 else value[:, word] for key, value in given.items()}
            parts.append(self.run(own, self.x[word], name)[name]["fn"])
        shared = all(value.shape[-1] == 1 for value in given.values())
        if shared and len(parts) > 1 and all(_same(parts[0], part) for part in parts[1:]):
            parts = parts[:1]
        return Conditional(parts, conditions, self.events[name], flat=not self.leading and bool(given))


def _same(a: Any, b: Any) -> bool:
    """Whether two objects have the same state, and so the same behaviour: the same class, the same digits."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, int | float | str | torch.dtype | torch.device):
        return bool(a == b)
    return hasattr(a, "__dict__") and not isinstance(a, nn.Module) and bool(vars(a)) and _same(vars(a), vars(b))
