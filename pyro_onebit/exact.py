r"""The truth about a model and a guide, by quadrature in float64.

With one scalar latent a layer every expectation is an integral over one or two lines. The top
latent's likelihood :math:`p(x \mid z_\mathrm{top})` and its approximate posterior
:math:`q(z_\mathrm{top} \mid x)` are tabulated on a grid that resolves both; what one layer and two
layers have in common is computed from that table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_onebit.data import OneBitData
from pyro_onebit.optimum import optimum
from pyro_onebit.quadrature import Grid, refine

__all__ = ["Evaluation", "Truth", "evaluate", "optimum", "solve"]

#: Doubling the nodes goes on until no figure changes by more than this: in nats, and above one nat,
#: which only untrained models cost, relative to the figure.
TOLERANCE = 1e-7
_MAX_DOUBLINGS = 3
#: Numbers in one temporary matrix: 2 million float64 are 16 MB, which a core's cache still helps.
_BLOCK = 2**21
#: The standard normal's mass beyond is 1e-23.
_PRIOR_EDGES = torch.tensor([-10.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 10.0], dtype=torch.float64)


class Evaluation(dict[str, float]):
    """Exact figures by name, in nats per datum; `truth` is the table they come from."""

    truth: Truth

    @property
    def errors(self) -> dict[str, float]:
        """By how much each figure changed when the nodes doubled."""
        return self.truth.errors


@dataclass(frozen=True)
class Truth:
    """The top latent on a grid, for each codeword, and the terms of the loss.

    Arguments:
        z: Nodes of the top latent, ascending, shape ``(N,)``.
        weights: Their quadrature weights, shape ``(N,)``.
        log_q: log q(z|x), shape ``(2, N)``.
        log_likelihood: log p(x|z), lower latents integrated out, shape ``(2, N)``.
        terms: recon, kl1 (and kl2) of each codeword, each of shape ``(2,)``.
        probs: The codewords' probabilities, shape ``(2,)``.
    """

    z: Tensor
    weights: Tensor
    log_q: Tensor
    log_likelihood: Tensor
    terms: dict[str, Tensor]
    probs: Tensor
    errors: dict[str, float] = field(default_factory=dict)

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z), shape ``(N,)``."""
        return _log_standard_normal(self.z)

    @cached_property
    def log_evidence(self) -> Tensor:
        """log p(x) of each codeword, shape ``(2,)``."""
        return torch.logsumexp(self.weights.log() + self.log_prior + self.log_likelihood, -1)

    @cached_property
    def log_posterior(self) -> Tensor:
        """log p(z|x), shape ``(2, N)``."""
        return self.log_prior + self.log_likelihood - self.log_evidence[:, None]

    @cached_property
    def log_aggregate(self) -> Tensor:
        """log q(z), the aggregate posterior, shape ``(N,)``."""
        return torch.logsumexp(self.probs.log()[:, None] + self.log_q, 0)

    def under_q(self, f: Tensor) -> Tensor:
        """E[f(z)] under q(z|x) of each codeword: f of shape ``(N,)`` or ``(2, N)`` to ``(2,)``."""
        q = self.log_q.exp()
        # Where q vanishes a log-ratio may be infinite; 0 times it is 0 here.
        return torch.where(q > 0, q * f, 0.0) @ self.weights

    def figures(self) -> dict[str, float]:
        """All exact figures, averaged over the data's distribution, in nats per datum."""
        mean = lambda per_codeword: float(self.probs @ per_codeword)  # noqa: E731
        terms = {name: mean(value) for name, value in self.terms.items()}
        return {
            "loss": sum(terms.values()),
            **terms,
            "log_evidence": mean(self.log_evidence),
            "kl_posterior": mean(self.under_q(self.log_q - self.log_posterior)),
            "mutual_information": mean(self.under_q(self.log_q - self.log_aggregate)),
            "kl_aggregate": mean(self.under_q(self.log_aggregate - self.log_prior)),
        }


def evaluate(model: nn.Module, guide: nn.Module, data: OneBitData) -> Evaluation:
    """Every exact figure of a model and a guide.

    Arguments:
        model: Has ``p_x(z1)`` and, with two layers, ``p_z1(z2)``.
        guide: Has ``q_z1(x)`` and, with two layers, ``q_z2(z1)``.
        data: The codewords and their probabilities.

    Returns:
        ``loss, recon, recon_per_dim, kl1, kl2, entropy, log_evidence, kl_posterior,
        mutual_information, kl_aggregate, optimum``; nats per datum (``recon_per_dim``: per datum and
        dimension); ``kl2`` is 0 with one layer.

    Raises:
        ArithmeticError: If a density or a likelihood is not finite, or the figures do not settle.
    """
    truth = solve(model, guide, data)
    figures = {"kl2": 0.0, **truth.figures()}
    one_layer = "kl2" not in truth.terms
    result = Evaluation(
        loss=figures["loss"],
        recon=figures["recon"],
        recon_per_dim=figures["recon"] / data.ndims,
        kl1=figures["kl1"],
        kl2=figures["kl2"],
        entropy=data.entropy,
        log_evidence=figures["log_evidence"],
        kl_posterior=figures["kl_posterior"],
        mutual_information=figures["mutual_information"],
        kl_aggregate=figures["kl_aggregate"],
        optimum=optimum(data.ndims, data.prob) if one_layer else data.entropy,
    )
    result.truth = truth
    return result


@torch.no_grad()
def solve(model: nn.Module, guide: nn.Module, data: OneBitData) -> Truth:
    """Tabulate the top latent of a model and a guide; arguments and errors as for `evaluate`."""
    double_model, double_guide = _double(model), _double(guide)
    x = data.codewords.double()
    probs = torch.tensor([1.0 - data.prob, data.prob], dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # draws only say where to put nodes; the same ones each time
        if hasattr(double_model, "p_z1"):
            grids = _two_layer_grids(double_model, double_guide, x)
            table: Callable[..., Truth] = _two_layers
        else:
            grids = [_one_layer_grid(double_model, double_guide, x)]
            table = _one_layer
    truth = table(double_model, double_guide, x, probs, *grids)
    for _ in range(_MAX_DOUBLINGS):
        grids = [grid.halved() for grid in grids]
        coarse, truth = truth.figures(), table(double_model, double_guide, x, probs, *grids)
        errors = {name: abs(value - coarse[name]) for name, value in truth.figures().items()}
        if all(error <= TOLERANCE * max(1.0, abs(coarse[name])) for name, error in errors.items()):
            truth.errors.update(errors)
            return truth
    raise ArithmeticError(f"quadrature did not settle: doubling the nodes still changes figures by {errors}")


def _double(module: nn.Module) -> Any:
    if not all(torch.isfinite(p).all() for p in module.parameters()):
        raise ArithmeticError(f"a parameter of {type(module).__name__} is not finite")
    return copy.deepcopy(module).double().eval()


def _log_standard_normal(z: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(z)


def _log_likelihood(model: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log p(x|z1) of each codeword at nodes ``(N,)``, shape ``(2, N)``."""
    blocks = []
    for block in z1.split(max(1, _BLOCK // x.shape[-1])):
        p_x = model.p_x(block[:, None])
        blocks.append(torch.stack([p_x.log_prob(codeword) for codeword in x]))
    return torch.cat(blocks, -1)


def _log_q_z1(guide: Any, x: Tensor, z1: Tensor) -> Tensor:
    """log q(z1|x) of each codeword at nodes ``(N,)``, shape ``(2, N)``."""
    log_q: Tensor = guide.q_z1(x).log_prob(z1[:, None, None])
    return log_q.T


def _landmarks(draws: Tensor) -> Tensor:
    """Panel edges where the mass of ``(draws, conditions)`` lies: quantiles, and steps of the sd."""
    mean, sd = draws.mean(0), draws.std(0)
    steps = torch.tensor([1.5, 3.0, 5.0, 8.0, 12.0], dtype=draws.dtype)[:, None]
    quantiles = draws.quantile(torch.linspace(0, 1, 9, dtype=draws.dtype), 0)
    return torch.cat([quantiles, mean - sd * steps, mean + sd * steps]).flatten()


def _edges(*parts: Tensor) -> Tensor:
    """The parts' edges in order, without those that nearly coincide."""
    edges = torch.cat(parts).sort().values
    keep = torch.diff(edges, prepend=edges[:1] - 1.0) > 1e-9 * (1.0 + edges.abs())
    return edges[keep]


def _one_layer_integrands(model: Any, guide: Any, x: Tensor, peak: Tensor, z: Tensor) -> Tensor:
    log_q, log_likelihood = _log_q_z1(guide, x, z), _log_likelihood(model, x, z)
    q = log_q.exp()
    joint = (_log_standard_normal(z) + log_likelihood - peak).exp()
    # 0 log 0 is 0 where a guide's support ends.
    return torch.cat([q, q * log_likelihood, torch.where(q > 0, q * log_q, 0.0), joint]).T


def _one_layer_grid(model: Any, guide: Any, x: Tensor) -> Grid:
    draws = guide.q_z1(x).sample((1024,)).squeeze(-1)
    edges = _edges(_PRIOR_EDGES, _landmarks(draws))
    z = Grid(edges).midpoints
    peak = (_log_standard_normal(z) + _log_likelihood(model, x, z)).amax(-1, keepdim=True)
    return refine(partial(_one_layer_integrands, model, guide, x, peak), edges)


def _one_layer(model: Any, guide: Any, x: Tensor, probs: Tensor, grid: Grid) -> Truth:
    truth = Truth(
        grid.nodes,
        grid.weights,
        log_q=_log_q_z1(guide, x, grid.nodes),
        log_likelihood=_log_likelihood(model, x, grid.nodes),
        terms={},
        probs=probs,
    )
    truth.terms["recon"] = truth.under_q(-truth.log_likelihood)
    truth.terms["kl1"] = truth.under_q(truth.log_q - truth.log_prior)
    return truth


def _thinned(mean: Tensor, sd: Tensor) -> Tensor:
    """Panel edges near many narrow densities: enough of their centres, and the gaps' near ends."""
    mean, order = mean.sort()
    kept = [0]
    for i, (m, s) in enumerate(zip(mean.tolist(), sd[order].tolist(), strict=True)):
        if m - float(mean[kept[-1]]) > 2 * s:
            kept.append(i)
    mean, reach = mean[kept], sd[order][kept] * torch.tensor([[4.0], [10.0]], dtype=mean.dtype)
    inf = mean.new_full((1,), torch.inf)
    right = (mean + reach)[mean + reach < torch.cat([mean[1:], inf])]
    left = (mean - reach)[mean - reach > torch.cat([-inf, mean[:-1]])]
    return torch.cat([left, mean, right])


def _centres(conditional: Callable[[Tensor], torch.distributions.Distribution], c: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd, by draws, of a scalar latent given each of the conditions ``(K,)``."""
    draws = conditional(c[:, None]).sample((64,)).squeeze(-1)
    return draws.mean(0), draws.std(0)


def _two_layer_grids(model: Any, guide: Any, x: Tensor) -> list[Grid]:
    """Grids for z1 and z2 that resolve q(z1|x), p(x|z1), and both conditionals between z1 and z2.

    A conditional is resolved if its slices at the other grid's midpoints are, each weighted by the
    mass it stands for: first z2 at a provisional z1, then z1 at that z2, then z2 at that z1.
    """
    draws = guide.q_z1(x).sample((1024,)).squeeze(-1)
    z2 = torch.linspace(-7.0, 7.0, 281, dtype=x.dtype)
    mean, sd = _centres(model.p_z1, z2)

    def of_z1(z1: Tensor) -> Tensor:
        q, log_likelihood = _log_q_z1(guide, x, z1).exp(), _log_likelihood(model, x, z1)
        return torch.cat([q, q * log_likelihood, log_likelihood.exp()]).T

    def given_z2(grid2: Grid, z1: Tensor) -> Tensor:
        q, likelihood = _log_q_z1(guide, x, z1).exp(), _log_likelihood(model, x, z1).exp()
        middle, mass = grid2.midpoints, grid2.widths
        q_z2 = guide.q_z2(z1[:, None]).log_prob(middle[:, None, None]).exp()
        prior = _log_standard_normal(middle).exp()
        p_z1 = model.p_z1(middle[:, None]).log_prob(z1[:, None, None]).T.exp()
        slices = [q[:, None] * (mass[:, None] * q_z2), likelihood[:, None] * ((mass * prior)[:, None] * p_z1)]
        return torch.cat(slices, 1).flatten(0, 1).T

    def given_z1(grid1: Grid) -> Callable[[Tensor], Tensor]:
        middle, mass = grid1.midpoints, grid1.widths
        q = (mass * _log_q_z1(guide, x, middle).exp())[:, :, None]
        likelihood = (mass * _log_likelihood(model, x, middle).exp())[:, :, None]
        conditional = guide.q_z2(middle[:, None])

        def of_z2(z2: Tensor) -> Tensor:
            q_z2 = conditional.log_prob(z2[:, None, None]).T.exp()
            p_z1 = model.p_z1(z2[:, None]).log_prob(middle[:, None, None]).exp()
            prior = _log_standard_normal(z2).exp()
            return torch.cat([q * q_z2, likelihood * (prior * p_z1)], 1).flatten(0, 1).T

        return of_z2

    def start_z2(grid1: Grid) -> Tensor:
        mean, sd = _centres(guide.q_z2, grid1.midpoints[_inside(grid1.midpoints, draws)])
        return _edges(_PRIOR_EDGES, _thinned(mean, sd))

    grid1 = refine(of_z1, _edges(_landmarks(draws), _thinned(mean, sd)))
    grid2 = refine(given_z1(grid1), start_z2(grid1))
    grid1 = refine(partial(given_z2, grid2), grid1.edges)
    grid2 = refine(given_z1(grid1), grid2.edges)
    return [grid1, grid2]


def _inside(z: Tensor, draws: Tensor) -> Tensor:
    """Which of z lie within ten standard deviations of either codeword's draws."""
    return ((z[:, None] - draws.mean(0)).abs() < 10 * draws.std(0)).any(-1)


def _two_layers(model: Any, guide: Any, x: Tensor, probs: Tensor, grid1: Grid, grid2: Grid) -> Truth:
    z1, w1, z2, w2 = grid1.nodes, grid1.weights, grid2.nodes, grid2.weights
    log_q1, log_likelihood = _log_q_z1(guide, x, z1), _log_likelihood(model, x, z1)
    weighted_q1 = w1 * log_q1.exp()
    weighted_joint = w1.log() + log_likelihood
    log_prior = _log_standard_normal(z2)
    q_z2 = guide.q_z2(z1[:, None])
    log_q, log_l = [], []
    cross = torch.zeros_like(z1)  # E[log p(z1|z2)] under q(z2|z1)
    kl2 = torch.zeros_like(z1)  # KL(q(z2|z1) || p(z2))
    for rows in torch.arange(len(z2)).split(max(1, _BLOCK // len(z1))):
        log_q2 = q_z2.log_prob(z2[rows, None, None])
        log_p1 = model.p_z1(z2[rows, None]).log_prob(z1[:, None, None]).T
        q2 = log_q2.exp()
        weighted_q2 = w2[rows, None] * q2
        log_q.append((weighted_q1 @ q2.T).log())
        log_l.append(torch.stack([torch.logsumexp(log_p1 + joint, -1) for joint in weighted_joint]))
        cross += torch.where(q2 > 0, weighted_q2 * log_p1, 0.0).sum(0)
        kl2 += torch.where(q2 > 0, weighted_q2 * (log_q2 - log_prior[rows, None]), 0.0).sum(0)
    terms = {
        "recon": -(weighted_q1 * log_likelihood).sum(-1),
        "kl1": (weighted_q1 * (log_q1 - cross)).sum(-1),
        "kl2": weighted_q1 @ kl2,
    }
    return Truth(z2, w2, torch.cat(log_q, -1), torch.cat(log_l, -1), terms, probs)
