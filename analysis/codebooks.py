"""What the scripts on several bits share: orders of codewords, and the best Gaussian as programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations, product
from typing import Any

import pyro
import torch
from pyro.distributions import Bernoulli, Normal

from pyro_onebit import BitsData, Run, exact
from pyro_onebit.data import words_of

Order = tuple[int, ...]


def repeats_of(text: str) -> tuple[int, ...]:
    """Of a flag: 50,5,1."""
    return tuple(map(int, text.split(",")))


def judged(run: Run) -> exact.Truth:
    """A run's densities."""
    return run.truth or run.judge().truth


def _alike(order: Order, data: BitsData) -> Iterator[Order]:
    """The orders that differ by what makes no difference: the line's direction, a bit's 0 and 1, bits of one kind."""
    words = words_of(data.bits)
    kinds = list(zip(data.repeats, data.bit_probs, strict=True))
    swaps = [swap for swap in permutations(range(data.bits)) if [kinds[j] for j in swap] == kinds]
    fair = [(0, 1) if p == 0.5 else (0,) for p in data.bit_probs]
    for swap, flip in product(swaps, product(*fair)):
        moved = tuple(words.index(tuple(words[c][j] ^ flip[j] for j in swap)) for c in order)
        yield moved
        yield moved[::-1]


def canonical(order: Sequence[int], data: BitsData) -> Order:
    """The first of the orders that are like one."""
    return min(_alike(tuple(map(int, order)), data))


def misplaced(order: Order, data: BitsData) -> int:
    """By how many bits more neighbours differ than in a Gray code, in which it is one each."""
    words = words_of(data.bits)
    return sum(a != b for c, d in pairwise(order) for a, b in zip(words[c], words[d], strict=True)) - len(order) + 1


def named(order: Order, data: BitsData) -> str:
    """An order as the codewords' bits."""
    return " ".join(data.names[c] for c in order)


def best_programs(data: BitsData, best: exact.GaussianOptimum) -> tuple[Any, Any]:
    """The best Gaussian as a guide, and a model with its best decoder."""
    firsts = [sum(data.repeats[:j]) for j in range(data.bits)]
    places = 2.0 ** torch.arange(data.bits - 1, -1, -1, dtype=torch.float64)
    loc, scale = (torch.tensor(part, dtype=torch.float64) for part in (best.loc, best.scale))

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z1", Normal(torch.zeros(len(x), 1, dtype=torch.float64), 1.0).to_event(1))
            shares = (Normal(loc, scale).log_prob(z) + data.probs.log()).softmax(-1)
            ones = (shares @ data.codewords.double()).clamp(1e-300, 1.0 - 1e-16)
            pyro.sample("x", Bernoulli(ones).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        number = (x[:, firsts].double() @ places).long()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", Normal(loc[number][:, None], scale[number][:, None]).to_event(1))

    return model, guide
