"""Guides that learn nothing, against which the others are held: the prior and the exact posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.special import ndtr

from pyro_onebit.data import BitsData
from pyro_onebit.distributions import standard_normal
from pyro_onebit.guides.base import OneLayerGuide, register_guide
from pyro_onebit.guides.flow import FLOW_START
from pyro_onebit.nn import ONE_LAYER, Architecture, Start, frozen
from pyro_onebit.quadrature import Grid, refine


@register_guide("prior")
class PriorGuide(OneLayerGuide):
    """The prior, whatever x is: a reference; nothing is learned. Arguments: as for `OneLayerGuide`."""

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()

    def q_z1(self, x: Tensor) -> Independent:
        """N(0, 1) for each of rows x ``(..., ndims)``."""
        return Normal(x.new_zeros(*x.shape[:-1], 1), 1.0).to_event(1)


#: How far from a threshold the fixed grid has edges: its panels grow with the distance.
_AROUND = tuple(10.0 * 2.0**-k for k in range(24))


#: Logits that are held at once.
_BLOCK = 2**21


def _log_joint(model: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log p(x, z1) of each row at nodes ``(N,)``, shape ``(rows, N)``, float64."""
    blocks = []
    for block in z1.split(max(1, _BLOCK // x.shape[-1])):
        p_x = model.p_x(block[:, None])
        blocks.append(torch.stack([p_x.log_prob(row) for row in x]) + standard_normal(z1).log_prob(block[:, None]))
    return torch.cat(blocks, -1).double()


class ExactPosterior(TorchDistribution):
    """p(z1|x) of a one-layer model, by quadrature; event shape ``(1,)``. It holds the model's parameters fixed.

    Arguments:
        model: Has ``p_x(z1)``.
        x: Rows, shape ``(rows, ndims)``.
        grid: For z1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 1)
    has_rsample = True

    def __init__(self, model: Any, x: Tensor, grid: Grid) -> None:
        self.model, self.x, self.grid = model, x, grid
        with torch.no_grad():
            nodes = grid.nodes.to(x.dtype)
            log_joint = _log_joint(model, x, nodes)
            self.log_evidence = torch.logsumexp(grid.weights.log() + log_joint, -1)
            self.cumulative = grid.cumulative((log_joint - self.log_evidence[:, None]).exp())
        super().__init__(x.shape[:-1], (1,))

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExactPosterior:
        """The same rows for many particles."""
        new = object.__new__(ExactPosterior)
        new.__dict__.update(self.__dict__)
        TorchDistribution.__init__(new, torch.Size(batch_shape), (1,), validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z1|x), shape ``(..., rows)``."""
        value = value.expand(*value.shape[:-2], *self.x.shape[:-1], 1)
        with frozen(self.model):
            # In blocks: all the logits at once would be gigabytes.
            blocks = value.split(max(1, _BLOCK // self.x.numel())) if value.dim() > 2 else [value]
            likelihood = torch.cat([self.model.p_x(block).log_prob(self.x) for block in blocks])
        return standard_normal(value).log_prob(value) + likelihood - self.log_evidence.to(value.dtype)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples; their gradient is zero, as there is nothing to learn."""
        return self.from_noise(torch.randn(self._extended_shape(sample_shape), dtype=self.x.dtype))

    def from_noise(self, noise: Tensor) -> Tensor:
        """The quantiles of standard normal noise ``(..., rows, 1)``."""
        levels = ndtr(noise.double()).squeeze(-1)
        flat = levels.reshape(-1, len(self.cumulative)).T.contiguous()
        return self.grid.invert(self.cumulative, flat).T.reshape(noise.shape).to(noise.dtype)


@register_guide("oracle")
class ExactPosteriorGuide(OneLayerGuide):
    """The exact posterior of the model that it is bound to; nothing is learned: a reference.

    In training mode on a grid that is fine around the ideal thresholds, otherwise on one that is refined until it
    resolves the posterior. Arguments: as for `OneLayerGuide`.
    """

    start: ClassVar[Start] = FLOW_START
    model: Any

    def __init__(self, ndims: int, prob: float = 0.5, arch: Architecture = ONE_LAYER) -> None:
        super().__init__()
        self.thresholds = self.start.cuts(prob, arch.repeats or (1,))
        self.__dict__["model"] = nn.Identity()
        self.eval()

    def bind_model(self, model: nn.Module) -> None:
        """Say whose posterior it is; `build` does."""
        # Not as a submodule: its parameters are not the guide's.
        self.__dict__["model"] = model

    def optimum(self, data: BitsData) -> float:
        """The entropy, nats per datum: the loss is -log p(x), which a steep threshold decoder brings down to it."""
        return data.entropy

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExactPosteriorGuide:
        self.model._apply(fn)
        super()._apply(fn, recurse)
        return self

    def q_z1(self, x: Tensor) -> ExactPosterior:
        """p(z1|x) of rows ``(rows, ndims)``."""
        return ExactPosterior(self.model, x, self._fixed_grid() if self.training else self._refined_grid(x))

    def _fixed_grid(self) -> Grid:
        reach = torch.tensor(_AROUND, dtype=torch.float64)
        around = torch.cat([-reach, reach.flip(0)])
        return Grid(torch.cat([cut + around for cut in self.thresholds]).unique())

    @torch.no_grad()
    def _refined_grid(self, x: Tensor) -> Grid:
        rows = x.unique(dim=0)
        edges = self._fixed_grid().edges
        coarse = Grid(edges).nodes.to(x.dtype)

        peak = _log_joint(self.model, rows, coarse).amax(-1, keepdim=True)
        return refine(lambda z: (_log_joint(self.model, rows, z.to(x.dtype)) - peak).exp().T, edges).grid
