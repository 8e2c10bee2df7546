"""The top latent's densities and the terms of the loss, tabulated by quadrature."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.search import Search
from pyro_onebit.programs import DataLike, Densities, Pair, blocks
from pyro_onebit.quadrature import Grid, Product, Tail, tail_of

#: Grids are made finer until no figure changes by more than this: in nats, and above one nat,
#: which only untrained models cost, relative to the figure.
TOLERANCE = 1e-7
_MOST_CHECKS = 3
#: What an integral of a density may differ from one by.
_NORMALISED = 1e-7
#: The probability with which right draws are taken for wrong ones.
_FALSE_ALARM = 1e-10
#: Samples do not go further out than so many standard deviations.
_SEEN = 12.0
#: Pairs of nodes beyond which finer grids take minutes.
_MOST_PAIRS = 2**27


@dataclass(frozen=True, repr=False)
class Truth(Marginal):
    """The top latent on a grid, for each codeword, and the terms of the loss.

    Arguments:
        latents: The latents' names, the lowest first; the last is the top one.
        grids: Their grids.
        q_masses: The mass under q of each node, along each latent, ``(M, nodes)``.
        p_masses: The same under the prior; it is alike for all codewords.
        integrands: What the terms of the loss are sums of: each node's share, along each latent, ``(M, nodes)``. The
            terms are recon, and for each latent what its KL term is called.
        is_usual: Whether the model is of the kind for which guides' limits are known (`programs.Pair.is_usual`).
        errors: By how much each of `figures` may be wrong.
        notes: Of a figure that is not known, why not; of one that is, what samples would not see of it.
        unsettled: The figures that are not known.
    """

    latents: tuple[str, ...]
    grids: tuple[Grid, ...]
    q_masses: tuple[Tensor, ...]
    p_masses: tuple[Tensor, ...]
    integrands: dict[str, tuple[Tensor, ...]]
    is_usual: bool
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)

    def shown(self) -> dict[str, Any]:
        """Its size, and the exact figures, nats per datum."""
        nodes = "×".join(str(len(grid.nodes)) for grid in self.grids)
        known = {name: value for name, value in self.figures().items() if name not in self.unsettled}
        return {"latents": ",".join(self.latents), "codewords": len(self.probs), "nodes": nodes, **known}

    @property
    def terms(self) -> dict[str, Tensor]:
        """recon, kl1 (and kl2) of each codeword, each of shape ``(M,)``."""
        return {name: self._whole(name) for name in self.integrands}

    def figures(self) -> dict[str, float]:
        """All exact figures, averaged over the data's distribution, in nats per datum; what is not known included."""
        figures = {name: float(self.probs @ value) for name, value in self.terms.items()}
        figures = {"loss": sum(figures.values()), **figures}
        figures["log_evidence"] = float(self.probs @ self.log_evidence)
        return figures | {name: float(self.probs @ self._whole(name)) for name in _RATIOS}

    def along(self, name: str) -> tuple[Tensor, ...]:
        """Each node's share of a figure, along each latent that it is an integral over."""
        if name in self.integrands:
            return self.integrands[name]
        if name == "loss":
            return tuple(torch.stack(shares).sum(0) for shares in zip(*self.integrands.values(), strict=True))
        if name == "log_evidence":
            return ()
        over, under = (getattr(self, density) for density in _RATIOS[name])
        return (self.shares(self.log_q, over - under),)

    def _tails(self, name: str) -> list[Tail]:
        along = self.along(name)
        grids = self.grids[len(self.grids) - len(along) :]
        return [tail_of(grid, own) for grid, own in zip(grids, along, strict=True)]

    def left_out(self, name: str) -> float:
        """By how much a figure may be wrong for what lies beyond the grids."""
        return float(sum(self.probs @ tail.error for tail in self._tails(name)))

    def _whole(self, name: str) -> Tensor:
        """A figure of each codeword, ``(M,)``, followed beyond the grids."""
        return sum((tail.beyond for tail in self._tails(name)), self.along(name)[-1].sum(-1))


#: Figures that are expectations, under q, of the log of one density over another.
_RATIOS = {
    "kl_posterior": ("log_q", "log_posterior"),
    "mutual_information": ("log_q", "log_aggregate"),
    "kl_aggregate": ("log_aggregate", "log_prior"),
}


@torch.no_grad()
def solve(model: Any, guide: Any, data: DataLike) -> Truth:
    """Tabulate the top latent of a model and a guide.

    Arguments:
        model: A Pyro program of rows x: a module or a function.
        guide: One that draws the model's latents, one or two scalars.
        data: The codewords and their probabilities.

    Raises:
        ProgramError: If a program cannot be judged, or the two do not go together.
        ArithmeticError: If a density or a likelihood is not a number where it matters, a density is none, or what is
            drawn is not drawn from it.
    """
    pair = Pair(model, guide, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # draws only say where to put nodes; the same ones each time
        search = Search(pair)
        truth = _tabulate(pair, search.grids())
        if _not_normalised(truth):
            search.look_harder()
            truth = _tabulate(pair, search.grids())
    truth = _checked(pair, truth)
    _check_densities(pair, truth, search.draws)
    return truth


def _checked(pair: Pair, truth: Truth) -> Truth:
    """The same on grids so fine that finer ones change no figure, or with what is not known said."""
    for _ in range(_MOST_CHECKS):
        coarse = truth.figures()
        grids = [grid.checked() for grid in truth.grids]
        truth = _tabulate(pair, grids)
        figures = truth.figures()
        sizes = {name: max(1.0, abs(value)) if math.isfinite(value) else 0.0 for name, value in figures.items()}
        changes = {
            name: 0.0 if math.isinf(value) and value == coarse[name] else abs(value - coarse[name])
            for name, value in figures.items()
        }
        # What lies beyond the grids no finer one finds.
        is_fine = all(change <= TOLERANCE * sizes[name] for name, change in changes.items())
        if is_fine or 4 * math.prod(len(grid.nodes) for grid in grids) > _MOST_PAIRS:
            break
    for name, value in figures.items():
        if math.isfinite(value):
            changes[name] += truth.left_out(name)
    is_settled = {name: change <= TOLERANCE * sizes[name] for name, change in changes.items()}
    for name, change in changes.items():
        truth.errors[name] = change
        note = _note_on(truth, name)
        if not is_settled[name]:
            truth.unsettled.add(name)
            truth.notes[name] = f"it is {figures[name]:.6g} give or take {change:.2g}, by what a finer grid changes"
        elif note:
            truth.notes[name] = note
    return truth


def tabulate(model: Any, guide: Any, data: DataLike, grids: Sequence[Grid]) -> Truth:
    """The same on given grids, the lowest latent's first; whether they resolve it is the caller's to know."""
    with torch.no_grad():
        return _tabulate(Pair(model, guide, data), grids)


def _tabulate(pair: Pair, grids: Sequence[Grid]) -> Truth:
    top, single = grids[-1], len(grids) == 1
    # A single latent is the top one, above a lower one that has one value.
    lower = torch.zeros(1, dtype=torch.float64) if single else grids[0].nodes
    low = torch.ones(1, dtype=torch.float64) if single else grids[0].weights
    ones = [(1.0, torch.ones(1, 1, 1, dtype=torch.float64))]
    columns: list[list[Tensor]] = [[], [], []]
    over_low: dict[str, list[Tensor]] = {}
    over_top: dict[str, Tensor] = defaultdict(lambda: torch.zeros(len(lower), pair.words, dtype=torch.float64))
    for rows, near, at in blocks(pair, grids):
        prior = at.p[pair.latents[-1]]
        q = Product(at.q, top.weights[rows], low[near], pair.words)
        below = Product({name: at.p[name] for name in pair.latents[:-1]}, top.weights[rows], low[near], pair.words)
        p = below.times(pair.latents[-1], prior)
        terms = {**_terms(pair, at), _Q: ones}
        sums = [*q.sums(*terms.values()), *p.sums(ones)]
        for name, (own, along_low) in zip([*terms, _PRIOR], sums, strict=True):
            over_low.setdefault(name, []).append(own)
            over_top[name].index_add_(0, near, along_low.expand(len(near), pair.words))
        columns[0].append(prior[:, 0, 0].expand(len(rows)))
        columns[1].append(below.log_over_low(at.likelihood))
        columns[2].append(q.log_over_low())
    log_prior, log_likelihood, log_q = (torch.cat(column) for column in columns)
    along: dict[str, tuple[Tensor, ...]] = {}
    for name, parts in over_low.items():
        own = torch.cat(parts).T
        along[name] = (own,) if single else (over_top[name].T, own)
    return Truth(
        top,
        log_prior,
        log_likelihood.T,
        log_q.T,
        pair.probs,
        latents=pair.latents,
        grids=tuple(grids),
        q_masses=along.pop(_Q),
        p_masses=along.pop(_PRIOR),
        integrands=along,
        is_usual=pair.is_usual,
    )


_Q, _PRIOR = "q", "the model's prior"


def _terms(pair: Pair, at: Densities) -> dict[str, list[tuple[float, Tensor]]]:
    """What the terms of the loss are expectations of, under q: signed sums of sites."""
    terms = {"recon": [(-1.0, at.likelihood)]}
    for name in pair.latents:
        terms[kl_name(name)] = [(1.0, at.q[name]), (-1.0, at.p[name])]
    return terms


def kl_name(latent: str) -> str:
    """What the KL term of a latent is called: kl1 for z1, kl_theta for theta."""
    numbered = re.fullmatch(r"z(\d+)", latent)
    return f"kl{numbered[1]}" if numbered else f"kl_{latent}"


def _check_densities(pair: Pair, truth: Truth, draws: list[Tensor]) -> None:
    """Refuse densities that do not integrate to one, and draws that are not drawn from them.

    Arguments:
        pair: The programs.
        truth: Their densities.
        draws: Of each latent, the lowest first, ``(count, M + 1)``: of q for each codeword, and of the prior.

    Raises:
        ArithmeticError: With by how much.
    """
    for what, total in _not_normalised(truth).items():
        raise ArithmeticError(
            f"{what} integrates to {total:.9g}, not to 1{_where(pair, truth, what)}: it is no density, or has parts "
            f"that are too narrow or too far out to be found"
        )
    for name, grid, of_q, of_p, drawn in zip(
        truth.latents, truth.grids, truth.q_masses, truth.p_masses, draws, strict=True
    ):
        allowed = math.sqrt(-0.5 * math.log(0.5 * _FALSE_ALARM) / len(drawn))
        for column, masses in enumerate([*of_q, of_p[0]]):
            apart = _distance(grid, masses, drawn[:, column])
            if apart > allowed:
                whose = "the model" if column == len(of_q) else f"the guide, for codeword {column},"
                raise ArithmeticError(
                    f"{whose} draws {name} from another law than its density's: their distribution functions differ "
                    f"by {apart:.3f}"
                )


def _where(pair: Pair, truth: Truth, what: str) -> str:
    """Given which value of the latent that a program draws first the other one's density is furthest from one."""
    if len(truth.latents) == 1:
        return ""
    program, masses = (pair.model, truth.p_masses) if what == _PRIOR else (pair.guide, truth.q_masses)
    name, second = program.latents
    axis = pair.latents.index(name)
    grid = truth.grids[axis]
    off = (masses[axis] - grid.weights * pair.first(program).log_prob(grid.nodes)[:, 0].T.exp()).abs().amax(0)
    return f" (most of what is amiss is {second}'s, given {name} near {float(grid.nodes[off.argmax()]):.4g})"


def _not_normalised(truth: Truth) -> dict[str, float]:
    """The integrals, of q for each codeword and of the prior, that are not one."""
    names = [f"q({', '.join(truth.latents)}|x) of codeword {c}" for c in range(len(truth.probs))]
    totals = [*truth.q_masses[-1].sum(-1).tolist(), float(truth.p_masses[-1][0].sum())]
    pairs = zip([*names, _PRIOR], totals, strict=True)
    return {name: total for name, total in pairs if not abs(total - 1.0) <= _NORMALISED}


def _distance(grid: Grid, masses: Tensor, draws: Tensor) -> float:
    """The largest distance of the draws' distribution function from that of masses at nodes (Kolmogorov-Smirnov)."""
    z = draws.sort().values
    share = torch.arange(len(z) + 1, dtype=z.dtype) / len(z)
    at = grid.integral_to(masses / grid.weights, z.clamp(grid.edges[0], grid.edges[-1]))
    return float(torch.maximum((at - share[:-1]).abs(), (at - share[1:]).abs()).max())


def _note_on(truth: Truth, name: str) -> str | None:
    """What samples would not see of a figure; None if they would see most of it."""
    along = truth.along(name)
    # Along the top latent alone, or along all of them.
    those = slice(len(truth.latents) - len(along), None)
    for latent, grid, shares, masses in zip(
        truth.latents[those], truth.grids[those], along, truth.q_masses[those], strict=True
    ):
        level = torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64).expand(len(masses), 3)
        low, middle, high = grid.invert(grid.cumulative(masses / grid.weights), level).T
        far = (grid.nodes - middle[:, None]).abs() > _SEEN * 0.5 * (high - low)[:, None]
        unseen = truth.probs @ (shares * far).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(-1)
        if abs(float(unseen)) > 0.5 * max(1e-6, abs(float(truth.probs @ shares.sum(-1)))):
            where = f"values of {latent} beyond {_SEEN:.0f} standard deviations"
            return f"it is dominated by {where}, which samples do not see"
    return None
