"""Any two programs, as they are: right by closed forms and other rules, or refused in words."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoIAFNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from scipy import integrate, stats
from torch import Tensor, nn

from pyro_onebit import Config, OneBitData, bounds, build, diagnostics, exact
from pyro_onebit.coding import Codec
from pyro_onebit.errors import InputError, ProgramError

A, B, S = 0.8, 0.3, 0.6  # z2 ~ N(0, 1), z1 | z2 ~ N(A z2 + B, S^2), logits SLOPE z1 in N dimensions
SLOPE, N = 3.0, 3
DATA = OneBitData(N, 0.2)


def normal(loc: Tensor, scale: float) -> dist.Distribution:
    return dist.Normal(loc, torch.full_like(loc, scale)).to_event(1)


def rows(x: Tensor) -> Any:
    return pyro.plate("data", len(x), dim=-1)


def observe(logit: Tensor, x: Tensor) -> None:
    pyro.sample("x", dist.Bernoulli(logits=logit.expand(*logit.shape[:-1], N)).to_event(1), obs=x)


def model_of(prior: Any, logit: Callable[[Tensor], Tensor] = lambda z: SLOPE * z) -> Callable[[Tensor], None]:
    """z1 of a prior, and the same log-odds in all dimensions."""

    def model(x: Tensor) -> None:
        with rows(x):
            observe(logit(pyro.sample("z1", prior.expand([len(x), 1]).to_event(1))), x)

    return model


one_latent = model_of(dist.Normal(0.0, 1.0))


def two_latents(x: Tensor, top: str = "z2", low: str = "z1", slope: float = A, shift: float = B, sd: float = S) -> None:
    with rows(x):
        z2 = pyro.sample(top, normal(x.new_zeros(len(x), 1), 1.0))
        observe(SLOPE * pyro.sample(low, normal(slope * z2 + shift, sd)), x)


def side(x: Tensor) -> Tensor:
    return 2.0 * x.mean(-1, keepdim=True) - 1.0


def guide_of(make: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    def guide(x: Tensor) -> None:
        with rows(x):
            pyro.sample("z1", make(side(x)))

    return guide


def recon_of(law: Callable[[float], float], prob: float = 0.2, slope: float = SLOPE, ndims: int = N) -> float:
    """-E log p(x|z1), by scipy's adaptive rule, for densities ``law(side)`` of z1."""
    total = 0.0
    for c, weight in ((-1.0, 1 - prob), (1.0, prob)):
        pdf = law(c)
        value, _ = integrate.quad(
            lambda z, pdf=pdf, c=c: pdf(z) * ndims * math.log1p(math.exp(-c * slope * z)) if abs(z) < 200 else 0.0,
            -60, 60, points=[-2, -1, 0, 1, 2], limit=1000, epsabs=1e-12,
        )  # fmt: skip
        total += weight * value
    return total


@dataclass(frozen=True)
class Gaussian2:
    """z1, z2 of one codeword under q, jointly normal: z1 ~ N(m1, v1), z2 ~ N(m2, v2), covariance c."""

    m1: float
    v1: float
    m2: float
    v2: float
    c: float

    def kl(self) -> float:
        """KL to the model's prior, whose z1 given z2 is N(A z2 + B, S^2)."""
        entropy = 0.5 * math.log((2 * math.pi * math.e) ** 2 * (self.v1 * self.v2 - self.c**2))
        second = self.v2 + self.m2**2
        error = self.v1 - 2 * A * self.c + A**2 * self.v2 + (self.m1 - A * self.m2 - B) ** 2
        return 0.5 * math.log((2 * math.pi * S) ** 2) + 0.5 * second + 0.5 * error / S**2 - entropy


def up(x: Tensor, *, skip: float, cat: bool = False) -> None:
    """q(z1|x) q(z2|z1, x); with `cat` written as a network's input would be, for rows only."""
    with rows(x):
        z1 = pyro.sample("z1", normal(0.9 * side(x), 0.5))
        s = torch.cat([x, z1], -1)[..., :N].mean(-1, keepdim=True) * 2 - 1 if cat else side(x)
        pyro.sample("z2", normal(0.7 * z1 + skip * s, 0.4))


def down(x: Tensor, *, skip: float, top: str = "z2", low: str = "z1") -> None:
    """q(z2|x) q(z1|z2, x)."""
    with rows(x):
        z2 = pyro.sample(top, normal(0.8 * side(x), 0.6))
        pyro.sample(low, normal(0.6 * z2 + skip * side(x), 0.5))


def joint_up(s: float, skip: float) -> Gaussian2:
    return Gaussian2(0.9 * s, 0.25, 0.7 * 0.9 * s + skip * s, 0.49 * 0.25 + 0.16, 0.7 * 0.25)


def joint_down(s: float, skip: float) -> Gaussian2:
    return Gaussian2((0.6 * 0.8 + skip) * s, 0.36 * 0.36 + 0.25, 0.8 * s, 0.36, 0.6 * 0.36)


@pytest.mark.parametrize(
    ("guide", "joint"),
    [
        (lambda x: up(x, skip=0.0), lambda s: joint_up(s, 0.0)),
        (lambda x: up(x, skip=0.3), lambda s: joint_up(s, 0.3)),
        (lambda x: up(x, skip=0.3, cat=True), lambda s: joint_up(s, 0.3)),
        (lambda x: down(x, skip=0.0), lambda s: joint_down(s, 0.0)),
        (lambda x: down(x, skip=0.4), lambda s: joint_down(s, 0.4)),
    ],
    ids=["up", "up_skip", "up_skip_rows_only", "down", "down_skip"],
)
def test_factorisations(guide: Callable[[Tensor], None], joint: Callable[[float], Gaussian2]) -> None:
    figures = exact.evaluate(two_latents, guide, DATA)
    kl = 0.8 * joint(-1.0).kl() + 0.2 * joint(1.0).kl()
    recon = recon_of(lambda s: stats.norm(joint(s).m1, joint(s).v1 ** 0.5).pdf)
    assert figures["kl1"] + figures["kl2"] == pytest.approx(kl, abs=1e-7)
    assert figures["recon"] == pytest.approx(recon, abs=1e-7)
    assert max(figures.errors.values()) < 1e-7
    truth = figures.truth
    checks = exact.solve_joint(two_latents, guide, DATA, truth)
    # KL(q ‖ p(z|x)) = -ELBO + log p(x), and the joint's own marginals are the normal ones.
    gap = float(truth.probs @ checks.kl_forward)
    assert gap == pytest.approx(figures["loss"] + figures["log_evidence"], abs=1e-7)
    q1 = joint(1.0)
    expected = stats.norm(q1.m1, q1.v1**0.5).pdf(checks.z1.z.numpy())
    assert torch.allclose(checks.z1.log_q[1].exp(), torch.from_numpy(expected), atol=1e-7)


def test_terms_are_named_after_the_sites() -> None:
    names = {"top": "eta", "low": "theta"}
    figures = exact.evaluate(lambda x: two_latents(x, **names), lambda x: down(x, skip=0.0, **names), DATA)
    assert figures["kl_theta"] + figures["kl_eta"] == pytest.approx(
        0.8 * joint_down(-1.0, 0.0).kl() + 0.2 * joint_down(1.0, 0.0).kl(), abs=1e-7
    )
    assert "kl2" not in figures


@pytest.mark.parametrize("df", [2.1, 2.5, 3.0, 5.0, 10.0])
def test_tails_are_followed_as_far_as_they_matter(df: float) -> None:
    guide = guide_of(lambda s: dist.StudentT(df * torch.ones_like(s), s, 0.5).to_event(1))
    figures = exact.evaluate(one_latent, guide, DATA)
    law = stats.t(df, 0.0, 0.5)
    second = 0.25 * df / (df - 2.0) + 1.0
    kl = 0.5 * math.log(2 * math.pi) + 0.5 * second - float(law.entropy())
    assert figures["kl1"] == pytest.approx(kl, rel=1e-6)
    assert figures["loss"] == pytest.approx(figures["recon"] + kl, rel=1e-6)


@pytest.mark.parametrize("law", [dist.Cauchy, lambda s, _: dist.StudentT(2.0 * torch.ones_like(s), s, 0.5)])
def test_what_has_no_second_moment_costs_infinitely_much(law: Callable[..., Any]) -> None:
    figures = exact.evaluate(one_latent, guide_of(lambda s: law(s, torch.full_like(s, 0.5)).to_event(1)), DATA)
    assert figures["loss"] == math.inf
    assert figures["mutual_information"] < DATA.entropy


@pytest.mark.parametrize(("weight", "place", "scale"), [(0.3, 1.7, 1e-6), (1e-3, 0.4, 1e-4), (1e-3, 15.0, 0.1)])
def test_spikes_and_far_modes(weight: float, place: float, scale: float) -> None:
    def make(s: Tensor) -> Any:
        ones = torch.ones_like(s)[..., None]
        weights = torch.tensor([1 - weight, weight], dtype=s.dtype) * ones
        loc, sd = s[..., None] * torch.tensor([1.0, place]), torch.tensor([0.5, scale]) * ones
        return dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, sd)).to_event(1)

    figures = exact.evaluate(one_latent, guide_of(make), DATA)
    second = (1 - weight) * 1.25 + weight * (place**2 + scale**2)
    wide, spike = stats.norm(1.0, 0.5), stats.norm(place, scale)

    def integrand(z: float) -> float:
        q = (1 - weight) * wide.pdf(z) + weight * spike.pdf(z)
        return q * math.log(q) if q > 0 else 0.0

    # Piece by piece, each smooth.
    cuts = sorted(
        [*(1.0 + 0.5 * k for k in range(-9, 10)), *(place + scale * k for k in (-9, -6, -3, -1, 0, 1, 3, 6, 9))]
    )
    negative_entropy = sum(
        integrate.quad(integrand, low, high, epsabs=1e-12)[0] for low, high in itertools.pairwise(cuts)
    )
    expected = 0.5 * math.log(2 * math.pi) + 0.5 * second + negative_entropy
    assert figures["kl1"] == pytest.approx(expected, abs=1e-6)


def test_a_prior_of_its_own_truncated_as_an_ideal_posterior_is() -> None:
    figures = exact.evaluate(model_of(dist.Laplace(0.0, 1.0)), guide_of(lambda s: normal(s, 0.5)), DATA)
    cross = sum(
        p * integrate.quad(lambda z, s=s: stats.norm(s, 0.5).pdf(z) * abs(z), -9, 9, points=[0.0], epsabs=1e-12)[0]
        for s, p in ((-1.0, 0.8), (1.0, 0.2))
    )
    assert figures["kl1"] == pytest.approx(math.log(2) + cross - float(stats.norm(0, 0.5).entropy()), abs=1e-8)
    assert float(figures.truth.thresholds) == pytest.approx(stats.laplace.ppf(0.8), abs=1e-9)
    assert (figures.truth.log_truncated.exp() @ figures.truth.weights).tolist() == pytest.approx([1.0, 1.0], abs=1e-8)


def test_a_prior_that_does_not_reach_the_guide() -> None:
    model = model_of(dist.Uniform(-2.0, 2.0))
    figures = exact.evaluate(model, guide_of(lambda s: normal(s, 0.5)), DATA)
    assert figures["loss"] == figures["kl1"] == figures["kl_posterior"] == math.inf
    evidence = integrate.quad(lambda z: 0.25 * (1 + math.exp(-SLOPE * z)) ** -N, -2, 2, epsabs=1e-13)[0]
    assert float(figures.truth.log_evidence[1]) == pytest.approx(math.log(evidence), abs=1e-8)
    inside = exact.evaluate(model, guide_of(lambda s: dist.Uniform(s - 0.5, s + 0.5).to_event(1)), DATA)
    assert inside["kl1"] == pytest.approx(math.log(4.0), abs=1e-7)


@pytest.mark.parametrize("width", [1e-1, 1e-3, 1e-4])
def test_a_bump_of_the_decoder_that_neither_guide_nor_prior_knows_of(width: float) -> None:
    def logit(z: Any) -> Any:
        return -4.0 + 12.0 * torch.exp(-0.5 * ((z + 1.2345) / width) ** 2)

    figures = exact.evaluate(model_of(dist.Normal(0.0, 1.0), logit), guide_of(lambda s: normal(s, 0.2)), DATA)

    def joint(z: float) -> float:
        return float(stats.norm.pdf(z) / (1 + math.exp(-float(logit(torch.tensor(z, dtype=torch.float64))))) ** N)

    points = [-1.2345 + k * width for k in (-6, -3, -1, 0, 1, 3, 6)]
    evidence = integrate.quad(joint, -9, 9, points=points, epsabs=1e-14, limit=1000)[0]
    assert float(figures.truth.log_evidence[1]) == pytest.approx(math.log(evidence), abs=1e-6)


class Larger(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 1e-3


class Shifted(dist.Normal):
    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return super().rsample(sample_shape) + 0.1


def no_site(x: Tensor) -> None:
    with rows(x):
        pyro.sample("z", normal(side(x), 0.5))


def outside(x: Tensor) -> None:
    pyro.sample("z1", dist.Normal(side(x), 0.5).to_event(2))


def mixing(x: Tensor) -> None:
    with rows(x):
        pyro.sample("z1", normal(side(x) - side(x).mean(0), 0.5))


def scaled(x: Tensor) -> None:
    with pyro.poutine.scale(scale=0.5):
        guide_of(lambda s: normal(s, 0.5))(x)


@pytest.mark.parametrize(
    ("guide", "error", "words"),
    [
        (guide_of(lambda s: Larger(s, 0.5).to_event(1)), ArithmeticError, r"integrates to 1\.001.*, not to 1"),
        (guide_of(lambda s: Shifted(s, 0.5).to_event(1)), ArithmeticError, "draws z1 from another law.*differ by 0.0"),
        (guide_of(lambda s: normal(s * math.nan, 0.5)), ArithmeticError, "draws of z1 by the guide are not finite"),
        (guide_of(lambda s: dist.Bernoulli(logits=s).to_event(1)), ProgramError, "'z1' of the guide is discrete"),
        (guide_of(lambda s: normal(s.expand(-1, 2), 0.5)), ProgramError, r"events of shape \(2,\)"),
        (no_site, ProgramError, "the guide draws z, and the model z1"),
        (outside, ProgramError, "latents must be scalar"),
        (mixing, ProgramError, "rows hang on each other"),
        (scaled, ProgramError, "is scaled or masked"),
        (one_latent, ProgramError, "the guide observes x"),
    ],
)
def test_what_cannot_be_judged_is_refused(guide: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        exact.evaluate(one_latent, guide, DATA)


#: Three codewords, one of them rare: data need be no more than this.
WORDS = SimpleNamespace(
    codewords=torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
    probs=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
SLOPES = torch.tensor([2.0, -1.0, 0.5])


def of_words(x: Tensor) -> None:
    with rows(x):
        z1 = pyro.sample("z1", normal(x.new_zeros(len(x), 1), 1.0))
        pyro.sample("x", dist.Bernoulli(logits=SLOPES * z1).to_event(1), obs=x)


def guide_of_words(scale: float) -> Callable[[Tensor], None]:
    def guide(x: Tensor) -> None:
        with rows(x):
            pyro.sample("z1", normal(x @ torch.tensor([[1.0], [-1.0], [0.8]], dtype=x.dtype), scale))

    return guide


def test_three_codewords() -> None:
    figures = exact.evaluate(of_words, guide_of_words(0.3), WORDS)
    means = [0.8, -1.0, 0.8]
    kl = [0.5 * (m**2 + 0.09 - 1) - math.log(0.3) for m in means]
    assert figures["kl1"] == pytest.approx(0.5 * kl[0] + 0.3 * kl[1] + 0.2 * kl[2], abs=1e-9)
    assert figures["entropy"] == pytest.approx(stats.entropy([0.5, 0.3, 0.2]))
    truth = figures.truth
    assert truth.order.tolist()[0] == 1
    assert (truth.log_truncated.exp() @ truth.weights).tolist() == pytest.approx([1.0] * 3, abs=1e-9)
    for c, word in enumerate(WORDS.codewords):
        signs = (2 * word - 1) * SLOPES

        def joint(z: float, signs: Tensor = signs) -> float:
            return float(stats.norm.pdf(z) * torch.sigmoid(signs.double() * z).prod())

        evidence = integrate.quad(joint, -12, 12, epsabs=1e-13)[0]
        assert float(truth.log_evidence[c]) == pytest.approx(math.log(evidence), abs=1e-9)


def test_three_codewords_everywhere() -> None:
    """Bounds, calibration and the codec: each against what the exact tables say."""
    model, guide, data = of_words, guide_of_words(0.9), WORDS
    truth = exact.solve(model, guide, data)
    joint = exact.solve_joint(model, guide, data, truth)
    assert [row["codeword"] for row in exact.posterior_checks(truth, joint)] == [0, 1, 2] * 2
    bound = bounds.importance_bound(model, guide, data, 10, repeats=4000)
    expected = joint.law.expected_bound([10])[0]
    assert ((bound.value - expected).abs() < 5.4 * bound.standard_error).all()
    seen = diagnostics.simulate_calibration(model, guide, data, 4000).codeword
    shares = torch.stack([(seen == c).double().mean() for c in range(3)])
    # Hoeffding's inequality, at a chance of 1e-6.
    assert ((shares - truth.log_evidence.exp()).abs() < (math.log(2e6) / 8000) ** 0.5).all()
    codec = Codec(model, guide, data, bins=256)
    samples = np.random.default_rng(0).integers(0, 3, 2000).astype(np.uint8)
    words = codec.encode(samples)
    assert (codec.decode(words, len(samples)) == samples).all()
    assert codec.rate.mean == pytest.approx(codec.rate.neg_elbo, rel=0.05)


class Learned(PyroModule):
    """A guide whose parameters Pyro's store holds."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = PyroParam(torch.tensor(0.9))

    def forward(self, x: Tensor) -> None:
        with rows(x):
            pyro.sample("z1", normal(self.slope * side(x), 0.5))


def stored(x: Tensor) -> None:
    slope = pyro.param("slope", lambda: torch.tensor(0.1))
    with rows(x):
        pyro.sample("z1", normal(slope * side(x), 0.5))


NETWORK = nn.Linear(N, 1)


def closing_over_a_module(x: Tensor) -> None:
    """In single precision, which the rows are not."""
    with rows(x):
        pyro.sample("z1", normal(NETWORK(x), 0.5))


@pytest.mark.parametrize("kind", ["module", "function", "closure"])
def test_programs_of_all_kinds_are_left_as_they_were(kind: str) -> None:
    store = pyro.get_param_store()
    with store.scope():
        pyro.param("slope", torch.tensor(0.9))
        with torch.no_grad():
            NETWORK.weight.fill_(2.0 * 0.9 / N)
            NETWORK.bias.fill_(-0.9)
        guide = {"module": Learned(), "function": stored, "closure": closing_over_a_module}[kind]
        before = {name: value.clone() for name, value in store.items()}
        generator, dtype = torch.get_rng_state(), torch.get_default_dtype()
        figures = exact.evaluate(one_latent, guide, DATA)
        slope = float(torch.tensor(0.9))
        assert figures["kl1"] == pytest.approx(0.5 * (slope**2 + 0.25 - 1) - math.log(0.5), abs=1e-7)
        assert torch.equal(generator, torch.get_rng_state())
        assert torch.get_default_dtype() == dtype
        assert NETWORK.weight.dtype == torch.float32
        assert before.keys() == dict(store.items()).keys()
        assert all(torch.equal(before[name], value) for name, value in store.items())


def test_data_that_are_none() -> None:
    twice = SimpleNamespace(codewords=torch.zeros(3, 3), probs=WORDS.probs)
    with pytest.raises(InputError, match="distinct rows"):
        exact.evaluate(one_latent, guide_of(lambda s: normal(s, 0.5)), twice)


def test_a_figure_that_far_values_dominate_is_told_of() -> None:
    """q(z2|z1) widens like cosh(a z1): samples of z1 do not see what kl2 is made of, E cosh² = (1 + e^{2a²}) / 2."""
    a = 6.5

    def model(x: Tensor) -> None:
        two_latents(x, slope=0.0, shift=0.0, sd=1.0)

    def guide(x: Tensor) -> None:
        with rows(x):
            z1 = pyro.sample("z1", normal(0.0 * side(x), 1.0))
            pyro.sample("z2", dist.Normal(0.0 * z1, torch.cosh(a * z1)).to_event(1))

    figures = exact.evaluate(model, guide, DATA)
    e = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    log_cosh = (torch.exp(-0.5 * e**2) * torch.cosh(a * e).log()).sum() * (e[1] - e[0]) / math.sqrt(2 * math.pi)
    expected = 0.5 * (0.5 * (1.0 + math.exp(2.0 * a**2)) - 1.0) - float(log_cosh)
    assert figures["kl2"] == pytest.approx(expected, rel=1e-6)
    assert "z1 beyond 12 standard deviations" in figures.notes["kl2"]


def test_a_registered_model_with_another_prior_is_judged_under_it() -> None:
    model, guide, data = build(Config(ndims=3))

    class Wide(type(model)):
        def forward(self, x: Tensor) -> Any:
            with rows(x):
                z1 = pyro.sample("z1", normal(x.new_zeros(len(x), 1), 2.0))
                return pyro.sample("x", self.p_x(z1), obs=x)

    model.__class__ = Wide
    figures = exact.evaluate(model, guide, data)
    with torch.no_grad():
        q = guide.q_z1(data.codewords)
        m, s = q.mean.double(), q.stddev.double()
    kl = 0.5 * ((m**2 + s**2) / 4.0 - 1.0) + math.log(2.0) - s.log()
    assert figures["kl1"] == pytest.approx(float(data.probs @ kl.squeeze(-1)), abs=1e-6)


@pytest.mark.parametrize("positive", [False, True])
def test_an_automatic_guide_is_a_free_member_for_each_codeword(positive: bool) -> None:
    """`AutoNormal` draws a normal and carries it to the model's support: half of all numbers by exp."""
    prior = dist.Gamma(2.0, 1.0) if positive else dist.Normal(0.0, 1.0)

    model = model_of(prior, lambda z: SLOPE * (z - 1.0))
    guide = AutoNormal(model)
    guide(DATA.codewords)
    means, scale = (-0.25, 0.625), 0.5
    guide.locs.z1 = PyroParam(torch.tensor(means)[:, None])
    guide.scales.z1 = PyroParam(torch.full((2, 1), scale))
    loss = 0.0
    for sign, mean, weight in zip((-1.0, 1.0), means, (0.8, 0.2), strict=True):
        q = stats.lognorm(scale, scale=math.exp(mean)) if positive else stats.norm(mean, scale)
        p = stats.gamma(2.0) if positive else stats.norm()

        def integrand(z: float, sign: float = sign, q: Any = q, p: Any = p) -> float:
            recon = N * math.log1p(math.exp(-sign * SLOPE * (z - 1.0)))
            return float(q.pdf(z) * (recon + q.logpdf(z) - p.logpdf(z)))

        ends = q.ppf([1e-15, 0.5]).tolist() + q.isf([1e-15]).tolist()
        loss += weight * sum(integrate.quad(integrand, *part, epsabs=1e-12)[0] for part in itertools.pairwise(ends))
    assert exact.evaluate(model, guide, DATA)["loss"] == pytest.approx(loss, abs=1e-8)


@pytest.mark.parametrize(
    ("automatic", "reason"),
    [(AutoDelta, "is a point"), (AutoIAFNormal, "AutoIAFNormal_latent.*scalar"), (AutoDiagonalNormal, "scalar")],
)
def test_an_automatic_guide_that_has_no_density_of_a_row_is_refused(automatic: type, reason: str) -> None:
    guide = automatic(one_latent)
    guide(DATA.codewords)
    with pytest.raises(ProgramError, match=reason):
        exact.evaluate(one_latent, guide, DATA)
