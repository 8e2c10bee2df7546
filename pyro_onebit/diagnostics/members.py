"""A guide's free members: copies that need only please one codeword, and how the best of them is searched for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pyro_onebit.distributions import sample_from_noise
from pyro_onebit.errors import ProgramError
from pyro_onebit.exact import Joint, solve, solve_joint
from pyro_onebit.programs import DataLike, Latents, Pair
from pyro_onebit.quadrature import Grid, refine

#: Iterations of one round of L-BFGS, and of one of the natural gradient.
_ITERATIONS, _NATURAL = 150, 8
#: How far parameters are shaken, in units of their tensor's root mean square.
_SHAKE = 0.03
#: The natural gradient's damping at first, in units of the Fisher matrix's mean; and how often it is changed at most.
_DAMPING, _TRIES = 1e-3, 12
#: Nodes whose gradients are taken at once, and numbers that all of them may be.
_CHUNK, _MOST = 192, 2**23
#: The noise's mass beyond is 1e-15.
_REACH = 8.0
#: With one latent and with two: panels of each one's noise to start with, and at most, and where refinement ends.
_AT_FIRST, _FINEST, _TOLERANCE = {1: (16,), 2: (8, 2)}, {1: 200, 2: 24}, {1: 1e-7, 2: 1e-5}
#: Dimensions beyond which x must not hang on both of two latents: its logits are held for all nodes.
_MOST_NDIMS = 1000


@dataclass(frozen=True)
class _Mesh:
    """Where the gap is summed: nodes of each latent's noise, ``(N,)``, or of the latent itself; and their weights."""

    nodes: dict[str, Tensor]
    weights: Tensor


def free_parameters(copied: nn.Module, guide: nn.Module) -> list[nn.Parameter]:
    """A frozen copy's parameters that are free in the guide that it is a copy of, made free."""
    pairs = zip(copied.parameters(), guide.parameters(), strict=True)
    free = [own for own, given in pairs if given.requires_grad]
    for own in free:
        own.requires_grad_()
    return free


class Member:
    """A free copy of a guide, and its gap on one codeword.

    Arguments:
        model: The model.
        guide: A module.
        data: The codewords.
        joint: Their `solve_joint`.
        codeword: The number of the one to please.
    """

    def __init__(self, model: Any, guide: Any, data: DataLike, joint: Joint, codeword: int) -> None:
        pair = Pair(model, guide, data)
        self.model, self.data, self.column, self.marginal = model, data, codeword, joint.z1
        if pair.guide.splits and pair.model.splits:  # then other codewords need not be judged
            self.data, self.column = _Words(pair.x[codeword : codeword + 1], torch.ones(1, dtype=torch.float64)), 0
            pair = Pair(model, guide, self.data)
        self.pair, self.free, self.latents = pair, pair.guide.program, pair.guide.latents
        self.parameters = free_parameters(self.free, guide)
        self.log_evidence = joint.z1.log_evidence[codeword]
        # For a network takes long; what is found is judged by the model itself.
        self.log_likelihood = _Interpolated(joint.z1.z, joint.z1.log_likelihood[codeword])
        with torch.no_grad():
            zeros = {name: torch.zeros(2, dtype=torch.float64) for name in self.latents}
            self.in_noise = self._carried(zeros) is not None
        self.damping = _DAMPING

    @property
    def can_move(self) -> bool:
        """Whether there is a way to search."""
        fits = not self.pair.x_needs_top or self.pair.x.shape[-1] <= _MOST_NDIMS
        return len(self.latents) == 1 or (self.in_noise and fits)

    def judged(self) -> list[float]:
        """The gap, exactly, nats; or nothing if the copy cannot be judged."""
        try:
            truth = solve(self.model, self.free, self.data)
            gap = float(solve_joint(self.model, self.free, self.data, truth).kl_forward[self.column])
        except (ArithmeticError, ProgramError):
            return []
        return [] if math.isnan(gap) else [gap]

    def shake(self) -> None:
        """Move all parameters a little, the same way each time."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters:
                p.add_(_SHAKE * p.square().mean().sqrt() * torch.randn(p.shape, generator=generator, dtype=p.dtype))

    def descend(self) -> None:
        """A round of L-BFGS, which begins without a history, on a mesh of its own."""
        mesh = self._mesh()
        minimise(lambda: self._gap(mesh), self.parameters, _ITERATIONS)

    def follow_nature(self) -> None:
        """A round of the natural gradient (Amari 1998), damped as by Levenberg and Marquardt.

        The Fisher matrix is that of q at the mesh's nodes: where the best member is close to the posterior it is
        the gap's curvature, in coordinates however bad.
        """
        mesh, few = self._mesh(), self._few
        with torch.no_grad():
            gap = float(self._gap(mesh))
        for _ in range(_NATURAL):
            with torch.no_grad():
                z, shares, log_ratio = self._at(mesh)
            root = shares.sqrt()
            scores, target = root[:, None] * self._scores(z, few), root * log_ratio
            old, mean = parameters_to_vector(few).detach().clone(), scores.square().sum() / len(scores)
            # One equation for each node or for each parameter: the same step from either, the fewer the cheaper.
            by_node = len(scores) <= scores.shape[1]
            fisher, right = (scores @ scores.T, target) if by_node else (scores.T @ scores, scores.T @ target)
            unit = mean * torch.eye(len(fisher), dtype=fisher.dtype)
            for _ in range(_TRIES):
                solved = torch.linalg.solve_ex(fisher + self.damping * unit, right).result
                vector_to_parameters(old - (scores.T @ solved if by_node else solved), few)
                with torch.no_grad():
                    value = float(self._gap(mesh))
                if value < gap:
                    break
                self.damping *= 4.0
            else:
                vector_to_parameters(old, few)
                self.damping = _DAMPING
                return
            gap, self.damping = value, 0.25 * self.damping

    @property
    def _few(self) -> list[nn.Parameter]:
        """The smallest parameters, as many as may have a gradient at each node: biases suffice for one codeword."""
        room, few = _MOST // (12 * _FINEST[1]), []
        for p in sorted(self.parameters, key=torch.numel):
            room -= p.numel()
            few += [p] if room >= 0 else []
        return few

    def _scores(self, z: Latents, few: list[nn.Parameter]) -> Tensor:
        """Gradients of log q(z|x) at each node, ``(N, parameters)``."""
        parts = []
        for start in range(0, len(z[self.latents[0]]), _CHUNK):
            some = {name: value[start : start + _CHUNK] for name, value in z.items()}
            log_q = self._log_density(self.pair.guide, some)
            each = torch.eye(len(log_q), dtype=log_q.dtype)
            gradients = torch.autograd.grad(
                log_q, few, grad_outputs=each, is_grads_batched=True, allow_unused=True, materialize_grads=True
            )
            parts.append(torch.cat([g.reshape(len(log_q), -1) for g in gradients], 1))
        return torch.cat(parts)

    def _carried(self, noise: Latents) -> Latents | None:
        """Noise ``(N,)`` carried to the latents, each ``(N, 1)``, with gradients; None if it is not known how."""
        z: Latents = {}
        for name in self.latents:
            conditional, own = self.pair.guide.conditional(name, z), noise[name]
            fn = conditional.parts[min(self.column, len(conditional.parts) - 1)]
            shape = (len(own), *(() if conditional.flat else fn.batch_shape[-1:]), *fn.event_shape)
            value = sample_from_noise(fn, own.reshape(-1, *[1] * (len(shape) - 1)).expand(shape))
            if value is None:
                return None
            z[name] = _column(value.reshape(len(own), -1), self.column)[:, None]
        return z

    def _log_density(self, program: Any, z: Latents) -> Tensor:
        """log-density of all latents under a program, ``(N,)``."""
        total = torch.zeros(1, dtype=torch.float64)
        for i, name in enumerate(program.latents):
            given = {key: z[key] for key in program.latents[:i]}
            # The pair keeps what the guide draws first; but the copy moves.
            conditional_of = program.conditional if program is self.pair.guide else partial(self.pair.given, program)
            conditional = conditional_of(name, given)
            words = 1 if len(conditional.parts) == 1 else self.pair.words
            total = total + _column(conditional.log_prob_at(z[name].expand(-1, words)), self.column)
        return total

    def _log_posterior(self, z: Latents) -> Tensor:
        if self.pair.x_needs_top:
            likelihood = self.pair.likelihood(z)[:, self.column]
        else:
            likelihood = self.log_likelihood(z[self.pair.latents[0]][:, 0])
        return self._log_density(self.pair.model, z) + likelihood - self.log_evidence

    def _at(self, mesh: _Mesh) -> tuple[Latents, Tensor, Tensor]:
        """The latents at the nodes, their shares of q, ``(N,)``, and log q / p there, ``(N,)``."""
        z = self._carried(mesh.nodes) if self.in_noise else {name: value[:, None] for name, value in mesh.nodes.items()}
        assert z is not None
        log_q = self._log_density(self.pair.guide, z)
        log_ratio = log_q - self._log_posterior(z)
        if self.in_noise:
            return z, mesh.weights, log_ratio
        # Where q vanishes the ratio may be infinite.
        shares = mesh.weights * log_q.exp()
        return z, shares, torch.where(shares > 0, log_ratio, 0.0)

    def _gap(self, mesh: _Mesh) -> Tensor:
        """The gap. Mass that q hides from the nodes, if they do not move with it, is missed: the sum of p is 1."""
        _, shares, log_ratio = self._at(mesh)
        return shares @ log_ratio + 1.0 - shares.sum()

    @torch.no_grad()
    def _mesh(self) -> _Mesh:
        """A mesh that resolves the gap as it is."""
        if not self.in_noise:
            grid = self.marginal.grid.halved()
            return _Mesh({self.latents[0]: grid.nodes}, grid.weights)
        grids = [noise_grid(panels) for panels in _AT_FIRST[len(self.latents)]]
        # The second noise's grid, and again the first one's, for what is hidden between the other one's coarse nodes.
        for axis in (0, 1, 0)[: 2 * len(grids) - 1]:
            grids[axis] = self._resolved(grids, axis)
        return self._product([(grid.nodes, normal_weights(grid)) for grid in grids])

    def _product(self, axes: list[tuple[Tensor, Tensor]]) -> _Mesh:
        """All pairs of two noises' nodes, of which each has a weight; the first one's count slowest."""
        nodes, weights = (torch.cartesian_prod(*parts).reshape(-1, len(axes)) for parts in zip(*axes, strict=True))
        return _Mesh(dict(zip(self.latents, nodes.T, strict=True)), weights.prod(1))

    def _resolved(self, grids: list[Grid], axis: int) -> Grid:
        """A grid of one noise that resolves the gap: of the second one at each node of the first one's."""

        def integrand(t: Tensor) -> Tensor:
            axes = [(grid.nodes, normal_weights(grid)) for grid in grids]
            axes[axis] = t, Normal(0.0, 1.0).log_prob(t).exp()
            mesh = self._product(axes)
            shares = (mesh.weights * self._at(mesh)[2]).reshape(len(axes[0][0]), -1)
            return shares.T if axis else shares.sum(-1, keepdim=True)

        most, tolerance = _FINEST[len(grids)], _TOLERANCE[len(grids)]
        if axis:  # it is of each of many integrals, whose errors add up
            tolerance *= 10.0 / len(grids[0].nodes)
        try:
            return refine(integrand, grids[axis].edges, tolerance, depth=25, most=most).grid
        except ArithmeticError:
            return noise_grid(most // 2)


_Steps = list[Callable[[Member], None]]
_ONE: _Steps = [Member.descend, *[Member.follow_nature] * 3, Member.descend]
_TWO: _Steps = [Member.descend] * 3
#: The searches with one latent and with two, step by step, each from the guide as it is. With two the natural gradient
#: was found to be slower.
SEARCHES: dict[int, list[_Steps]] = {1: [_ONE, [Member.shake, *_ONE]], 2: [_TWO, [Member.shake, *_TWO]]}


def minimise(objective: Callable[[], Tensor], parameters: Iterable[Tensor], iterations: int = _ITERATIONS) -> None:
    """Move parameters to a local minimum; they stay where the objective was lowest."""
    moved = list(parameters)
    if not moved:
        return
    optimizer = torch.optim.LBFGS(
        moved,
        max_iter=iterations,
        history_size=30,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    lowest, best = float("inf"), [p.detach().clone() for p in moved]

    def closure() -> Tensor:
        nonlocal lowest, best
        value = objective()
        # Not `backward`: what a program closes over keeps its gradients.
        gradients = torch.autograd.grad(value, moved, allow_unused=True, materialize_grads=True)
        for p, gradient in zip(moved, gradients, strict=True):
            p.grad = gradient
        if value.item() < lowest:
            lowest, best = value.item(), [p.detach().clone() for p in moved]
        return value.detach()

    try:
        optimizer.step(closure)
    finally:
        with torch.no_grad():
            for p, value in zip(moved, best, strict=True):
                p.copy_(value)


def noise_grid(panels: int) -> Grid:
    """Panels for standard normal noise."""
    return Grid(torch.linspace(-_REACH, _REACH, panels + 1, dtype=torch.float64))


def normal_weights(grid: Grid) -> Tensor:
    """Weights of standard normal noise at a grid's nodes."""
    return grid.weights * Normal(0.0, 1.0).log_prob(grid.nodes).exp()


def _column(table: Tensor, column: int) -> Tensor:
    """A codeword's column, ``(N,)``, of a table ``(N, M)``, or of ``(N, 1)`` if it holds for all."""
    return table[:, min(column, table.shape[-1] - 1)]


@dataclass(frozen=True)
class _Words:
    """Codewords and their probabilities."""

    codewords: Tensor
    probs: Tensor


class _Interpolated:
    """A function given at ascending nodes: cubic between them (Hermite), linear beyond."""

    def __init__(self, nodes: Tensor, values: Tensor) -> None:
        self.nodes, self.values = nodes, values
        [self.slopes] = torch.gradient(values, spacing=(nodes,))

    def __call__(self, z: Tensor) -> Tensor:
        at = (torch.searchsorted(self.nodes, z.detach().contiguous()) - 1).clamp(0, len(self.nodes) - 2)
        width, rise = self.nodes[at + 1] - self.nodes[at], self.values[at + 1] - self.values[at]
        t = (z - self.nodes[at]) / width
        inside = t.clamp(0.0, 1.0)
        left, right = width * self.slopes[at] - rise, width * self.slopes[at + 1] - rise
        return self.values[at] + t * rise + inside * (1.0 - inside) * ((1.0 - inside) * left - inside * right)
