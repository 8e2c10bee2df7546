"""Other libraries' distributions as Pyro's."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Independent, constraints

from pyro_onebit.distributions.noise import sample_from_noise


def per_row(distribution: Any, rows: torch.Size) -> Any:
    """A distribution of one number for each row, whoever made it, as a Pyro distribution of event shape ``(1,)``.

    Arguments:
        distribution: Pyro's, torch's or zuko's; or a zuko flow without a context. Its batch shape is ``rows``, with or
            without an event dimension of size 1, or ``(*rows, 1)`` without one; or there is none: all rows' alike.
        rows: The rows' shape.

    Raises:
        TypeError: If it is no distribution, or one of several numbers.
    """
    if isinstance(distribution, TorchDistributionMixin) and distribution.event_shape:
        return distribution
    if isinstance(distribution, ZukoToPyro):
        distribution = distribution.dist
    if isinstance(distribution, torch.nn.Module):
        distribution = distribution()
    if not isinstance(distribution, torch.distributions.Distribution):
        raise TypeError(f"a distribution is needed, and this is a {type(distribution).__name__}")
    if distribution.event_shape not in ((), (1,)):
        raise TypeError(f"one number per row is needed, and this has events of shape {tuple(distribution.event_shape)}")
    if not distribution.event_shape and len(distribution.batch_shape) > len(rows):
        distribution = Independent(distribution, 1)
    return PerRow(distribution, rows)


class PerRow(TorchDistribution):
    """One number for each row, by a distribution that is not Pyro's; event shape ``(1,)``.

    Arguments:
        base: A torch distribution of event shape ``()`` or ``(1,)``, whose batch shape broadcasts to `batch_shape`.
        batch_shape: The rows' shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, batch_shape: Any) -> None:
        self.base = base
        super().__init__(torch.Size(batch_shape), (1,), validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether gradients pass through samples."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> Any:
        """Where the density may be positive."""
        own = getattr(self.base, "support", None) or constraints.real
        return own if own.event_dim else constraints.independent(own, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PerRow:
        """The same for many particles. zuko's distributions have no `expand` through which gradients pass."""
        return PerRow(self.base, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-densities, nats, ``(...)``, of values ``(..., 1)``."""
        return self.base.log_prob(value if self.base.event_shape else value.squeeze(-1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape, 1)`` through which gradients pass."""
        return self._draw(self.base.rsample, torch.Size(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape, 1)``."""
        with torch.no_grad():
            return self._draw(self.base.sample, torch.Size(sample_shape))

    def _draw(self, draw: Any, sample_shape: torch.Size) -> Tensor:
        own, shape = len(self.base.batch_shape), sample_shape + self.batch_shape
        # Otherwise it has a batch of one, that stands for all rows.
        has_rows = self.base.batch_shape == self.batch_shape[len(self.batch_shape) - own :]
        return draw(shape[: len(shape) - own] if has_rows else shape).reshape(*shape, 1)

    def from_noise(self, noise: Tensor) -> Tensor | None:
        """What standard normal noise ``(..., 1)`` is carried to; None if it is not known how."""
        if self.base.event_shape:
            return sample_from_noise(self.base, noise)
        value = sample_from_noise(self.base, noise.squeeze(-1))
        return None if value is None else value[..., None]
