"""A site's distribution, given what was drawn before it: its density, and draws of it."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, constraints


def log_density(fn: Any, value: Tensor) -> Tensor:
    """log_prob, and minus infinity outside of the support, where without validation it is any number.

    Where a density has an infinite peak it is what it is next to it, on the left if it is something there.
    """
    log_prob: Tensor = fn.log_prob(value)
    if log_prob.numel() and not torch.isfinite(log_prob.amax()):
        left, right = (
            fn.log_prob(value.nextafter(torch.tensor(end, dtype=value.dtype))) for end in (-math.inf, math.inf)
        )
        log_prob = torch.where(log_prob == torch.inf, torch.where(torch.isfinite(left), left, right), log_prob)
    inside = _is_inside(fn, value)
    return log_prob if inside is None else torch.where(inside, log_prob, -torch.inf)


def _is_inside(fn: Any, value: Tensor) -> Tensor | None:
    """Whether values lie in a distribution's support; None if that is all numbers, or not said."""
    if isinstance(fn, Independent):
        inside = _is_inside(fn.base_dist, value)
        return None if inside is None else _all_of_event(inside, fn.reinterpreted_batch_ndims)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        parts = []
        for transform in reversed(fn.transforms):
            parts.append(_satisfies(transform.codomain, value))
            value = transform.inv(value)
            # Of transforms that are composed the codomain may be too large.
            parts.append(_all_of_event(~torch.isnan(value), len(fn.event_shape)))
        checked = [part for part in (*parts, _is_inside(fn.base_dist, value)) if part is not None]
        return functools.reduce(torch.logical_and, checked) if checked else None
    return _satisfies(support_of(fn), value)


def _all_of_event(is_so: Tensor, dims: int) -> Tensor:
    return is_so.flatten(is_so.dim() - dims).all(-1) if dims else is_so


def support_of(fn: Any) -> Any:
    """Where values may lie; all numbers if it is not said, as by zuko's distributions."""
    try:
        return fn.support
    except NotImplementedError:
        return constraints.real


def _satisfies(constraint: Any, value: Tensor) -> Tensor | None:
    if getattr(constraint, "base_constraint", constraint) is constraints.real:
        return None
    return constraint.check(value)


class Conditional:
    """One site's distribution: at N conditions, and for each of M codewords, or for all of them at once.

    Arguments:
        parts: Distributions of batch shape ``(N, m)``, ``(1, m)`` or ``(m,)``, or ``(N * m,)`` if `flat`, whose m add
            up to M, or to 1 if codewords make no difference.
        event: Dimensions of an event, 0 or 1.
        flat: Whether conditions and codewords are one dimension.
    """

    def __init__(self, parts: list[Any], conditions: int, event: int, *, flat: bool) -> None:
        self.parts, self.conditions, self.event, self.flat = parts, conditions, event, flat
        #: The conditions that are asked for, if not all.
        self.rows: Tensor | None = None

    def _unflat(self, values: Tensor) -> Tensor:
        """``(..., batch)`` as ``(..., N or 1, m)``."""
        return values.unflatten(-1, (self.conditions, -1)) if self.flat else values

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-densities at nodes ``(B,)``, shape ``(B, N or 1, M or 1)``."""
        tables = []
        for fn in self.parts:
            own = self._unflat(log_density(fn, z.reshape(-1, *[1] * (len(fn.batch_shape) + self.event))))
            own = own if own.dim() == 3 else own[:, None]
            tables.append(own if self.rows is None or own.shape[1] == 1 else own[:, self.rows])
        return tables[0] if len(tables) == 1 else torch.cat(torch.broadcast_tensors(*tables), -1)

    def log_prob_at(self, z: Tensor) -> Tensor:
        """Log-densities at a value for each condition and codeword, ``(N, M)``."""
        tables = []
        for fn, own in zip(self.parts, z.split(z.shape[-1] // len(self.parts), -1), strict=True):
            value = own.flatten() if self.flat else own
            tables.append(self._unflat(log_density(fn, value[..., None] if self.event else value)))
        return torch.cat(tables, -1)

    def only(self, rows: Tensor) -> Conditional:
        """The same at some of its conditions, given by their numbers."""
        parts = [self._part_at(fn, rows) for fn in self.parts]
        if all(part is not None for part in parts):
            return Conditional(parts, len(rows), self.event, flat=self.flat)
        some = copy.copy(self)
        some.rows = rows
        return some

    def _part_at(self, fn: Any, rows: Tensor) -> Any:
        """A part at some of its conditions; None if it is not known how to make it."""
        if not self.flat and (len(fn.batch_shape) == 1 or fn.batch_shape[0] == 1 < self.conditions):
            return fn
        if isinstance(fn, Independent):
            base = self._part_at(fn.base_dist, rows)
            return None if base is None else Independent(base, fn.reinterpreted_batch_ndims, validate_args=False)
        normal = torch.distributions.Normal
        if not isinstance(fn, normal) or type(fn).log_prob is not normal.log_prob:
            return None
        loc, scale = (
            (own.unflatten(0, (self.conditions, -1))[rows].flatten(0, 1) if self.flat else own[rows])
            for own in (fn.loc, fn.scale)
        )
        return normal(loc, scale, validate_args=False)

    def sample(self, count: int) -> Tensor:
        """Draws, ``(count, M or 1)``: one at each condition, of which there must be as many, if there are any."""
        drawn = []
        for fn in self.parts:
            # What does not depend on the conditions is still drawn once for each of them.
            shape = (count,) if len(fn.batch_shape) == 1 and not self.flat else ()
            value = fn(shape)
            drawn.append(self._unflat(value.squeeze(-1) if self.event else value))
        return torch.cat(drawn, -1)
