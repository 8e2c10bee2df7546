"""Monte Carlo bounds on the log evidence, each with what makes it untrustworthy, and the exact ones beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from pyro_onebit.diagnostics import khat, khat_threshold
from pyro_onebit.errors import InputError
from pyro_onebit.exact import Joint, Truth, draw_posterior, finite
from pyro_onebit.programs import DataLike, Pair
from pyro_onebit.reproducibility import seeded
from pyro_onebit.system import check_memory

__all__ = ["Estimate", "bound_table", "eubo", "importance_bound", "log_weights", "pyro_bound"]

#: Draws a codeword that are held at once, if a single repeat does not need more.
_DRAWS = 2**20
#: Draws a codeword that go through the networks at once.
_AT_ONCE = 2**14
#: Memory that a weight takes, and its copies on the way.
_WEIGHT_BYTES = 24
#: Repeats whose k̂ is fitted: a fit takes longer than the draws do.
_FITTED = 32


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo estimate for each codeword, in nats, each tensor of shape ``(M,)``.

    Arguments:
        value: The estimate, the mean over repeats.
        standard_error: From the spread of the repeats; of a single one, from that of its weights (NaN if it
            has but one), which is too small where the weights' tail is heavy.
        probs: The codewords' probabilities.
        ess: Effective sample size, (Σ w)² / Σ w², of a repeat's draws, the mean over repeats.
        largest_share: The largest weight's share of their sum, the mean over repeats.
        khat: PSIS k̂ of a repeat's draws (`psis.khat`), the median over the first repeats.
    """

    value: Tensor
    standard_error: Tensor
    probs: Tensor
    ess: Tensor
    largest_share: Tensor
    khat: Tensor

    @property
    def average(self) -> tuple[float, float]:
        """The estimate averaged over the data's distribution, and its standard error; nats per datum."""
        error = (self.probs**2 @ self.standard_error**2).sqrt()
        return float(self.probs @ self.value), float(error)


def _check(alpha: float = 0.0, **counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{name} is {count!r}; it must be a whole number, at least 1")
    if not math.isfinite(alpha):
        raise InputError(f"alpha is {alpha}; it must be a finite number")


def log_weights(model: Any, guide: Any, data: DataLike, draws: int, seed: int = 0) -> Tensor:
    """log w = log p(x, z) - log q(z|x) of draws of q, for each codeword, in float64.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        draws: Their number; memory is bounded but for the result.
        seed: Random seed for the draws; torch's generator is left as it was.

    Returns:
        Nats, shape ``(draws, M)``.
    """
    _check(draws=draws)
    pair = Pair(model, guide, data)
    check_memory(_WEIGHT_BYTES * draws * pair.words, f"{draws} draws")
    with seeded(seed):
        return _draw_log_weights(pair, draws)


def _draw_log_weights(pair: Pair, draws: int) -> Tensor:
    return torch.cat([pair.at_draws(min(_AT_ONCE, draws - start)).log_weight for start in range(0, draws, _AT_ONCE)])


def importance_bound(
    model: Any, guide: Any, data: DataLike, particles: int, *, alpha: float = 0.0, repeats: int = 1, seed: int = 0
) -> Estimate:
    r"""The importance-weighted bound :math:`\frac{1}{1-\alpha} \ln \frac1K \sum_k w_k^{1-\alpha}` by sampling.

    alpha 0: IWAE_K (Burda, Grosse and Salakhutdinov 2016); other alpha: the Rényi bound (Li and Turner
    2016), at 1 its limit, the ELBO. A lower bound on log p(x) in expectation for alpha from 0 on. Its exact
    expectation is `exact.WeightLaw.expected_bound`.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        particles: K, up to millions; what is kept of a draw is its weight.
        alpha: The order.
        repeats: Independent bounds that are averaged.
        seed: Random seed for the draws; torch's generator is left as it was.

    Raises:
        InputError: If `particles` or `repeats` is below 1 or needs more memory than there is, or `alpha` not finite.
        ArithmeticError: If a parameter is not finite.
    """
    _check(alpha, particles=particles, repeats=repeats)
    pair = Pair(model, guide, data)
    held = max(particles, min(_DRAWS, particles * repeats)) + repeats
    check_memory(_WEIGHT_BYTES * held * pair.words, f"a bound of {particles} particles, {repeats} times,")
    parts: list[tuple[Tensor, ...]] = []
    shape = torch.empty(0)
    with seeded(seed):
        at_once = max(1, _DRAWS // particles)
        for start in range(0, repeats, at_once):
            count = min(at_once, repeats - start)
            log_w = _draw_log_weights(pair, count * particles).reshape(particles, count, pair.words)
            log_v = log_w if alpha == 1.0 else (1.0 - alpha) * log_w
            parts.append(_summarise(log_w, log_v, alpha))
            if start == 0:
                shape = khat(log_v[:, :_FITTED]).median(0).values
    value, share_squared, largest = (torch.cat(part) for part in zip(*parts, strict=True))
    if repeats > 1:
        error = value.std(0) / repeats**0.5
    elif particles > 1 and alpha != 1.0:
        # The delta method: Var(ln mean v) is about Var(v) / (K (E v)^2).
        error = (share_squared[0] - 1.0 / particles).clamp_min(0.0).sqrt() / abs(1.0 - alpha)
    else:
        error = torch.full((pair.words,), torch.nan, dtype=torch.float64)
    return Estimate(value.mean(0), error, pair.probs, (1.0 / share_squared).mean(0), largest.mean(0), shape)


def _summarise(log_w: Tensor, log_v: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of weights w, and v = w^(1 - alpha), ``(K, repeats, M)``: the bound, the shares' squares' sum, the largest."""
    total = torch.logsumexp(log_v, 0)
    bound = log_w.mean(0) if alpha == 1.0 else (total - math.log(len(log_v))) / (1.0 - alpha)
    share = (log_v - total).exp_()
    return bound, share.square().sum(0), share.amax(0)


def pyro_bound(
    model: Any, guide: Any, data: DataLike, particles: int, *, alpha: float = 0.0, repeats: int = 20, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The same bound by Pyro's RenyiELBO (at alpha 1, Trace_ELBO): a check on both programs and `importance_bound`.

    Every particle's logits are held at once, in the programs' own dtype.

    Arguments: as for `importance_bound`; `model` and `guide` are Pyro programs with one plate around
        all sites (otherwise Pyro gives the bound on the whole batch's joint).

    Returns:
        The mean over repeats and its standard error, nats, each of shape ``(M,)``.
    """
    _check(alpha, particles=particles, repeats=repeats)
    x = data.codewords
    check_memory(
        x.element_size() * particles * x.shape[-1], f"{particles} particles at once, {x.shape[-1]} logits each,"
    )
    settings: dict[str, Any] = {"num_particles": particles, "vectorize_particles": True, "max_plate_nesting": 1}
    elbo = Trace_ELBO(**settings) if alpha == 1.0 else RenyiELBO(alpha=alpha, **settings)
    with seeded(seed), pyro.get_param_store().scope():
        values = [[-elbo.loss(model, guide, codeword[None]) for codeword in data.codewords] for _ in range(repeats)]
    value = torch.tensor(values, dtype=torch.float64)
    return value.mean(0), value.std(0) / repeats**0.5


def eubo(model: Any, guide: Any, data: DataLike, truth: Truth, draws: int = 1000, seed: int = 0) -> Estimate:
    r"""The evidence upper bound :math:`E_{p(z|x)} \ln w`, by exact posterior draws.

    Its exact value is log p(x) + KL(p ‖ q), ``truth.log_evidence + joint.kl_reverse``.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        truth: Their ``exact.solve``, on whose grids the posterior is drawn.
        draws: Their number, at least 2.
        seed: Random seed for the draws; torch's generator is left as it was.

    Raises:
        InputError: If `draws` is below 2.
    """
    _check(draws=draws)
    if draws < 2:
        raise InputError("draws is 1; a spread, and with it a standard error, needs at least 2")
    pair = Pair(model, guide, data)
    with seeded(seed):
        log_w = pair.at(draw_posterior(pair, truth, draws)).log_weight
    equal = torch.full((pair.words,), float(draws), dtype=torch.float64)
    return Estimate(
        log_w.mean(0), log_w.std(0) / draws**0.5, truth.probs, equal, 1.0 / equal, torch.full_like(equal, torch.nan)
    )


def bound_table(
    model: Any,
    guide: Any,
    data: DataLike,
    joint: Joint,
    particles: Sequence[int],
    *,
    alpha: float = 0.0,
    repeats: int = 100,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Sampled bounds beside their exact expectations, a row for each K and each codeword, and one for their average.

    Arguments:
        model: The model.
        guide: Its guide.
        data: The codewords.
        joint: Their ``exact.solve_joint``.
        particles: Values of K.
        alpha: The order; 0 is the importance-weighted bound.
        repeats: Independent bounds for each K.
        seed: Random seed for the draws.

    Returns:
        Rows with ``particles``, ``codeword`` (None: averaged over the data), ``estimate`` and
        ``standard_error``; ``expected``, its exact expectation; ``gap``, how far that is below log p(x);
        nats. For each codeword also ``ess``, ``largest_share``, ``khat``, ``khat_ideal``, what an ideal sample of
        K draws would give, and ``trusted``, whether k̂ is below its threshold at K draws. None: not defined.

    Raises:
        InputError: If a value of K or `repeats` is below 1, or `alpha` not finite.
    """
    for k in particles:
        _check(particles=k, repeats=repeats)
    law = joint.law
    expected = law.expected_bound(particles, alpha)
    rows = []
    for k, exact_value in zip(particles, expected, strict=True):
        estimate = importance_bound(model, guide, data, k, alpha=alpha, repeats=repeats, seed=seed)
        ideal = khat(law.quantiles(k) * (1.0 - alpha if alpha != 1.0 else 1.0))
        for codeword in range(len(law.probs)):
            shape = float(estimate.khat[codeword])
            rows.append(
                {
                    "particles": k,
                    "codeword": codeword,
                    "estimate": float(estimate.value[codeword]),
                    "standard_error": finite(estimate.standard_error[codeword]),
                    "expected": float(exact_value[codeword]),
                    "gap": float(law.log_evidence[codeword] - exact_value[codeword]),
                    "ess": float(estimate.ess[codeword]),
                    "largest_share": float(estimate.largest_share[codeword]),
                    "khat": finite(shape),
                    "khat_ideal": finite(ideal[codeword]),
                    "trusted": None if shape != shape else shape < khat_threshold(k),
                }
            )
        value, error = estimate.average
        average = float(law.probs @ exact_value)
        rows.append(
            {
                "particles": k,
                "codeword": None,
                "estimate": value,
                "standard_error": finite(error),
                "expected": average,
                "gap": float(law.probs @ law.log_evidence) - average,
            }
        )
    return rows
