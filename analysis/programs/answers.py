"""What is true of a program, by numpy and SciPy alone: no Pyro program is run here, and nothing of the package used.

An expectation under a law is an integral over t = -log of the probability beyond, from ln 2 on, once for each side:
there a power-law tail, a Gaussian one, an infinite peak at a support's end are all smooth. Its panels are bisected
until a Gauss-Legendre rule of 20 nodes agrees with two of half the width. Where there is something to see (a spike,
a bump, a step) the case says, in `places`. All in nats; the codewords are 0 and 1, in this order, `prob` is the
probability of 1, and `q` has a law of the latent, or of the first one, for each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from scipy.special import log_expit, logsumexp

Values = NDArray[np.float64]
Function = Callable[[Values], Values]
#: log p(x_c|z) of codeword c at z.
LogLikelihood = Callable[[int, Values], Values]
#: Takes z, and log q(z) where it is known better than from z.
Integrand = Callable[[Values, Values], Values]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_LN2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_GENERATIONS, _MOST_PANELS = 45, 400_000


def integrate(f: Function, edges: Values, relative: float = 1e-12, absolute: float = 0.0) -> float:
    """The integral of f over its panels, each bisected until that changes it by little.

    Arguments:
        f: Of arrays of any shape.
        edges: The panels'.
        relative: What is little, as a share of the whole.
        absolute: What is little, in any case.

    Raises:
        ArithmeticError: If that takes too many panels.
    """
    edges = np.unique(edges)
    low, high = edges[:-1], edges[1:]
    total, scale = 0.0, 0.0

    def panels(low: Values, high: Values) -> Values:
        half = 0.5 * (high - low)
        return half * (f(low[:, None] + half[:, None] * (1.0 + _NODES)) @ _WEIGHTS)

    whole = panels(low, high)
    for _ in range(_GENERATIONS):
        middle = 0.5 * (low + high)
        left, right = panels(low, middle), panels(middle, high)
        scale = max(scale, abs(total) + float(np.abs(left + right).sum()))
        split = np.abs(whole - left - right) > 0.1 * max(relative * scale, absolute)
        total += float((left + right)[~split].sum())
        if not split.any():
            return total
        low, high = np.r_[low[split], middle[split]], np.r_[middle[split], high[split]]
        whole = np.r_[left[split], right[split]]
        if len(low) > _MOST_PANELS:
            break
    if float(np.abs(whole).sum()) > max(1e-9 * scale, absolute):
        raise ArithmeticError("the independent rule did not settle")
    return total + float(whole.sum())


class StudentT:
    """SciPy's, with quantiles far out from the power law: SciPy's own are wrong where less than e^-250 is beyond."""

    def __init__(self, df: float) -> None:
        self.df, self.law = df, stats.t(df)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.law, name)

    def isf(self, tail: Values) -> Values:
        """Where `tail` of the probability is above."""
        bounded = np.maximum(tail, math.exp(-200.0))
        return self.law.isf(bounded) * (bounded / tail) ** (1.0 / self.df)

    def ppf(self, tail: Values) -> Values:
        """Where `tail` of the probability is below; at most a half."""
        return -self.isf(tail)


@dataclass(frozen=True)
class Mixture:
    """A mixture of shifted and scaled laws of SciPy; mostly of one.

    Arguments:
        parts: (weight, SciPy's law, loc, scale) of each.
        reach: Beyond a probability of e^-reach on either side there is nothing that counts.
    """

    parts: tuple[tuple[float, Any, float, float], ...]
    reach: float = 250.0

    def logpdf(self, z: Values) -> Values:
        """The log-density."""
        terms = [math.log(w / s) + law.logpdf((z - m) / s) for w, law, m, s in self.parts]
        return logsumexp(terms, axis=0) if len(terms) > 1 else terms[0]

    @property
    def places(self) -> Values:
        """Each part's quantiles."""
        level = np.exp(-np.array([_LN2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
        return np.concatenate([m + s * np.r_[law.ppf(level), law.isf(level)] for _, law, m, s in self.parts])

    @property
    def is_gaussian(self) -> bool:
        """Whether it is one."""
        return len(self.parts) == 1 and getattr(getattr(self.parts[0][1], "dist", None), "name", "") == "norm"

    @property
    def mean(self) -> float:
        """E[z]."""
        return sum(w * (m + s * float(law.mean())) for w, law, m, s in self.parts)

    @property
    def variance(self) -> float:
        """E[z^2] - E[z]^2."""
        second = sum(w * (s * s * float(law.var()) + (m + s * float(law.mean())) ** 2) for w, law, m, s in self.parts)
        return second - self.mean**2

    def _sides(self, places: Values) -> Iterator[tuple[float, Any, float, float, Function, Values]]:
        """Each part, below and above its median: how t becomes its value, and edges of t, some of them at places."""
        start = _LN2 + np.r_[0.0, np.geomspace(1e-3, self.reach - _LN2, 40)]
        places = np.r_[places, self.places]
        for weight, law, loc, scale in self.parts:
            y = (places - loc) / scale
            for quantile, beyond in ((law.ppf, law.cdf(y)), (law.isf, law.sf(y))):
                t = -np.log(beyond[(beyond < 0.5) & (beyond > 0.0)])
                yield weight, law, loc, scale, quantile, np.r_[start, t[t < self.reach]]

    def expectation(self, g: Integrand, places: Values, relative: float = 1e-12) -> float:
        """E[g(z, log q(z))], by panels that `relative` is little enough for."""
        total = 0.0
        for weight, law, loc, scale, quantile, edges in self._sides(places):

            def f(
                t: Values, quantile: Any = quantile, law: Any = law, loc: float = loc, scale: float = scale
            ) -> Values:
                tail = np.exp(-t)
                y = quantile(tail)
                z = loc + scale * y
                # Of one law from y: a peak at a support's end is lost in z.
                own = law.logpdf(y) - math.log(scale) if len(self.parts) == 1 else self.logpdf(z)
                return tail * g(z, own)

            total += weight * integrate(f, edges, relative, 1e-13)
        return total

    def log_expectation(self, log_g: Function, places: Values, first: int = 600) -> float:
        """log E[exp(log_g(z))], however small it is and wherever its mass lies; looked for on `first` panels."""
        logs = []
        for weight, _, loc, scale, quantile, edges in self._sides(places):

            def h(t: Values, quantile: Any = quantile, loc: float = loc, scale: float = scale) -> Values:
                return log_g(loc + scale * quantile(np.exp(-t))) - t

            edges = np.unique(np.r_[edges, np.linspace(_LN2, self.reach, first)])
            look = np.unique(np.linspace(edges[:-1], edges[1:], 9))
            values = h(look)
            peak = float(values.max())
            if peak == -math.inf:
                continue
            near = look[values > peak - 50.0]

            def scaled(t: Values, h: Function = h, peak: float = peak) -> Values:
                return np.exp(h(t) - peak)

            area = integrate(scaled, np.r_[edges, near])
            if area > 0.0:  # otherwise narrower than any number: nothing beside the other side's
                logs.append(math.log(weight) + peak + math.log(area))
        return float(logsumexp(logs))


@dataclass(frozen=True)
class Read:
    """A density that is given as a function, and integrated as it is, between edges."""

    log_density: Function
    edges: Values

    @property
    def places(self) -> Values:
        """The edges."""
        return self.edges

    def logpdf(self, z: Values) -> Values:
        """The log-density."""
        return self.log_density(z)

    def expectation(self, g: Integrand, places: Values, relative: float = 1e-12) -> float:
        """E[g(z, log q(z))]."""

        def f(z: Values) -> Values:
            own = self.log_density(z)
            inside = own > -600.0
            return np.where(inside, np.exp(own) * g(z, np.where(inside, own, 0.0)), 0.0)

        inside = places[(places > self.edges.min()) & (places < self.edges.max())]
        return integrate(f, np.r_[self.edges, inside], max(relative, 1e-10), 1e-13)


#: A density of a scalar, and expectations under it.
Law = Mixture | Read


def normal(loc: float, scale: float) -> Mixture:
    """N(loc, scale^2)."""
    return Mixture(((1.0, stats.norm(), loc, scale),))


def one_latent(
    q: Sequence[Law],
    p: Mixture,
    log_likelihood: LogLikelihood,
    prob: float,
    places: Iterable[float] = (),
    infinite: bool = False,
) -> dict[str, float]:
    """The figures of one latent, averaged over the codewords.

    Arguments:
        p: The prior.
        infinite: The loss and KL(q(z|x) ‖ p(z|x)) are infinite, as only who gives the case can know.
    """
    probs = (1.0 - prob, prob)
    where = np.r_[list(places), p.places, q[0].places, q[1].places]
    figures = dict.fromkeys(("loss", "log_evidence", "kl_posterior", "mutual_information"), 0.0)
    with np.errstate(all="ignore"):
        for c, weight in enumerate(probs):
            other = 1 - c

            def cost(z: Values, own: Values, c: int = c) -> Values:
                return own - p.logpdf(z) - log_likelihood(c, z)

            def information(z: Values, own: Values, c: int = c, other: int = other) -> Values:
                return -np.logaddexp(math.log(probs[c]), math.log(probs[other]) + q[other].logpdf(z) - own)

            figures["loss"] += math.inf if infinite else weight * q[c].expectation(cost, where)
            figures["mutual_information"] += weight * q[c].expectation(information, where)
            figures["log_evidence"] += weight * p.log_expectation(partial(log_likelihood, c), where)
    figures["kl_posterior"] = figures["loss"] + figures["log_evidence"]
    return figures


@dataclass(frozen=True)
class Linear:
    """Two latents of which one is a law and the other ``slope * it + shift + noise``; of one codeword.

    Arguments:
        first: The law of z1, or of z2 if `down`.
        slope: Of the other.
        shift: Of the other.
        noise: Of the other.
        down: From z2 to z1.
    """

    first: Mixture
    slope: float
    shift: float
    noise: Mixture
    down: bool = False

    def entropy(self) -> float:
        """-E[log q(z1, z2|x)]: an additive shift costs none, so the two laws' add up."""
        return -sum(law.expectation(lambda z, own: own, np.empty(0)) for law in (self.first, self.noise))

    def moments(self) -> tuple[Values, Values]:
        """Mean and covariance of (z1, z2)."""
        v, k = self.first.variance, self.slope
        mean = np.array([self.first.mean, k * self.first.mean + self.shift + self.noise.mean])
        covariance = np.array([[v, k * v], [k * v, k * k * v + self.noise.variance]])
        return (mean[::-1], covariance[::-1, ::-1]) if self.down else (mean, covariance)

    def marginal(self, latent: int) -> Mixture:
        """The law of z1 (0) or z2 (1): a Gaussian if both laws are; otherwise only the first's is known."""
        if latent == int(self.down):
            return self.first
        mean, covariance = self.moments()
        return normal(float(mean[latent]), math.sqrt(covariance[latent, latent]))


def two_linear(
    q: Sequence[Linear],
    a: float,
    b: float,
    s: float,
    log_likelihood: LogLikelihood,
    prob: float,
    prior: Mixture,
    mix: tuple[float, float],
) -> dict[str, float]:
    """The figures of z2 from a prior, z1|z2 ~ N(a z2 + b, s^2): second moments, and rules in one dimension.

    Without those of z2's marginal if a law of q is no Gaussian, or if x depends on both latents.

    Arguments:
        log_likelihood: log p(x_c|u), where u is ``mix[0] * z1 + mix[1] * z2``.
    """
    w, none = np.array(mix), np.empty(0)
    loss = 0.0
    for c, weight in enumerate((1.0 - prob, prob)):
        mean, covariance = q[c].moments()
        away = np.array([1.0, -a])
        second = float(away @ covariance @ away + (away @ mean - b) ** 2)
        # Second moments say what a Gaussian prior costs, whatever the law; another one's cost needs z2's law.
        if prior.is_gaussian:
            cost = _HALF_LOG_2PI + 0.5 * (covariance[1, 1] + mean[1] ** 2)
        else:
            cost = q[c].marginal(1).expectation(lambda z, _own: -prior.logpdf(z), prior.places)
        u = q[c].marginal(0) if mix == (1.0, 0.0) else normal(float(w @ mean), math.sqrt(w @ covariance @ w))

        def surprise(u: Values, _own: Values, c: int = c) -> Values:
            return -log_likelihood(c, u)

        recon = u.expectation(surprise, none)
        loss += weight * (-q[c].entropy() + cost + _HALF_LOG_2PI + math.log(s) + second / (2 * s * s) + recon)
    given_z2 = smeared(lambda z2: ((w[0] * a + w[1]) * z2 + w[0] * b, w[0] * s + 0.0 * z2), log_likelihood)
    evidence = [prior.log_expectation(partial(given_z2, c), none, 60) for c in (0, 1)]
    figures = {"loss": loss, "log_evidence": (1.0 - prob) * evidence[0] + prob * evidence[1]}
    if mix == (1.0, 0.0) and all(each.first.is_gaussian and each.noise.is_gaussian for each in q):
        top = one_latent([each.marginal(1) for each in q], prior, given_z2, prob)
        figures |= {name: top[name] for name in ("kl_posterior", "mutual_information")}
    return figures


def noise(turns: Values) -> tuple[Values, Values]:
    """Nodes of a standard normal, and their weights, on panels with edges at `turns` ``(..., places)`` too."""
    start = np.broadcast_to(np.linspace(-10.0, 10.0, 11), (*turns.shape[:-1], 11))
    edges = np.sort(np.concatenate([start, np.clip(turns, -10.0, 10.0)], -1), -1)[..., None]
    half = 0.5 * np.diff(edges, axis=-2)
    e = edges[..., :-1, :] + half * (1.0 + _NODES)
    weights = half * _WEIGHTS * np.exp(-0.5 * e**2 - _HALF_LOG_2PI)
    return e.reshape(*turns.shape[:-1], -1), weights.reshape(*turns.shape[:-1], -1)


#: Takes a condition to the mean and the sd of a Gaussian.
Conditional = Callable[[Values], tuple[Values, Values]]


def smeared(p_z1: Conditional, log_likelihood: LogLikelihood) -> LogLikelihood:
    """log p(x_c|z2) from log p(x_c|z1), which turns at z1 = 0, and a Gaussian p(z1|z2), however wide."""
    out = np.geomspace(3e-2, 1e4, 6)
    turns = np.r_[-out[::-1], 0.0, out]

    def given_z2(c: int, z2: Values) -> Values:
        mean, sd = (part[..., None] for part in p_z1(z2))
        e, weights = noise((turns - mean) / sd)
        return logsumexp(log_likelihood(c, mean + sd * e), axis=-1, b=weights)

    return given_z2


def two_nested(
    q: Sequence[Mixture],
    q_z2: Callable[[int, Values], tuple[Values, Values]],
    p_z1: Conditional,
    log_likelihood: LogLikelihood,
    prob: float,
    places: Iterable[float],
) -> dict[str, float]:
    """The loss and the evidence of z2 ~ N(0, 1) and Gaussian conditionals of any mean and sd: a rule within a rule.

    Arguments:
        q_z2: Mean and sd of z2 given the codeword and z1.
        places: Of z2.
    """
    figures = {"loss": 0.0, "log_evidence": 0.0}
    where, prior = np.array(list(places)), normal(0.0, 1.0)
    given_z2 = smeared(p_z1, log_likelihood)
    for c, weight in enumerate((1.0 - prob, prob)):

        def cost(z1: Values, own: Values, c: int = c) -> Values:
            mean, sd = (part[..., None] for part in q_z2(c, z1))
            e, weights = noise((where - mean) / sd)
            z2 = mean + sd * e
            m1, s1 = p_z1(z2)
            # log q(z2|z1) - log p(z2) - log p(z1|z2)
            inner = 0.5 * (z2**2 - e**2) - np.log(sd) + 0.5 * ((z1[..., None] - m1) / s1) ** 2 + np.log(s1)
            return own + (inner * weights).sum(-1) + _HALF_LOG_2PI - log_likelihood(c, z1)

        figures["loss"] += weight * q[c].expectation(cost, np.empty(0), 1e-9)
        figures["log_evidence"] += weight * prior.log_expectation(partial(given_z2, c), where, 60)
    return figures


def agreement() -> float:
    """By how much the rule differs, at most, from closed forms and from `scipy.integrate.quad` in z, on five models."""
    differences = []

    def ten(c: int, z: Values) -> Values:
        return 10 * log_expit((2 * c - 1) * 5.0 * z)

    # All Gaussian: x ~ N(z, 1) once, q = N(+-1, 0.5^2).
    given = one_latent([normal(s, 0.5) for s in (-1.0, 1.0)], normal(0, 1), lambda c, z: stats.norm.logpdf(c - z), 0.25)
    recon = [_HALF_LOG_2PI + 0.5 * ((c - m) ** 2 + 0.25) for c, m in ((0, -1.0), (1, 1.0))]
    loss = 0.75 * recon[0] + 0.25 * recon[1] + 0.5 * (0.25 + 1.0 - 1.0) + _LN2
    evidence = 0.75 * stats.norm.logpdf(0, 0, math.sqrt(2)) + 0.25 * stats.norm.logpdf(1, 0, math.sqrt(2))
    differences += [given["loss"] - loss, given["log_evidence"] - evidence]
    # Second moments far out.
    for df in (2.1, 3.0, 5.0):
        law = Mixture(((1.0, StudentT(df), 1.0, 0.5),), 690.0 if df < 3 else 250.0)
        second = law.expectation(lambda z, _own: z * z, np.empty(0))
        differences.append(second / (1.0 + 0.25 * df / (df - 2)) - 1.0)
    # Spikes, in z, each part's panels by hand.
    q = [Mixture(((0.95, stats.norm(), s, 0.5), (0.05, stats.norm(), 1.3 * s, 1e-6))) for s in (-1.0, 1.0)]
    by_quad = 0.0
    for c, weight in ((0, 0.75), (1, 0.25)):

        def cost(z: float, c: int = c) -> float:
            point = np.array([z])
            own = q[c].logpdf(point)
            value = np.exp(own) * (own - stats.norm.logpdf(point) - ten(c, point))
            return float(value[0])

        near = 1.3 * (2 * c - 1) + 1e-6 * np.array([-9.0, -4.0, -1.0, 1.0, 4.0, 9.0])
        edges = np.unique(np.r_[(2 * c - 1) + np.arange(-6.0, 7.0), near])
        pieces = itertools.pairwise(edges)
        by_quad += weight * sum(quad(cost, low, high, epsabs=0.0, epsrel=1e-11, limit=200)[0] for low, high in pieces)
    differences.append(one_latent(q, normal(0, 1), ten, 0.25)["loss"] - by_quad)
    # A mode fifteen standard deviations out: p(x|z) normal, n = 10,000 and its mean 15.6.
    far = normal(0, 1).log_expectation(lambda z: 1e4 * (-0.5 * (z - 15.6) ** 2), np.array([]))
    differences.append(far + 0.5 * (math.log(1e4 + 1.0) + 15.6**2 * 1e4 / (1e4 + 1.0)))
    return max(abs(float(difference)) for difference in differences)
