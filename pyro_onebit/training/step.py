"""An ELBO and its gradient as one graph of tensor operations, run without Python and without autograd.

A step on two scalar latents is a few hundred small operations; what Pyro, the distributions and
autograd do between them takes several times as long as they do. So they do it once: the model and
the guide run under the ELBO, its gradient is taken, and the operations of both are recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO
from pyro.infer.util import is_identically_zero
from torch import Tensor, nn

from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError, NotCompilableError
from pyro_onebit.internals import keep_freed_memory, particle_traces, record, sample_sites
from pyro_onebit.programs import Program
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.system import check_memory
from pyro_onebit.training.config import DTYPES, Config
from pyro_onebit.training.lattice import LatticeNoise
from pyro_onebit.training.recipes import Recipe


class _Estimator:
    """What both kinds have in common.

    Arguments:
        elbos: Those that are evaluated.
    """

    def __init__(self, *elbos: ELBO) -> None:
        self._elbos = elbos
        self._values: list[float] = []
        #: What `terms` has; nothing where the objective is not known to be a sum of them.
        self.names: list[str] = []

    @property
    def terms(self) -> dict[str, float]:
        """The last call's estimate of ``recon, kl1`` (and ``kl2``), nats, summed over rows; they sum to its loss."""
        return dict(zip(self.names, self._values, strict=True))

    def set_step(self, step: int, steps: int) -> None:
        """Tell an objective with a schedule which of all steps comes next."""
        for elbo in self._elbos:
            if hasattr(elbo, "set_step"):
                elbo.set_step(step, steps)


class CompiledELBO(_Estimator):
    """What ``SVI(..., loss_and_grads=...)`` takes, for one model, one guide and rows of one shape.

    Handlers around the construction are part of what is recorded; later ones are without effect.
    Each call draws new noise from torch's generator, which the construction leaves as it was.

    Arguments:
        elbo: A `Trace_ELBO` with vectorised particles.
        model: A Pyro model of rows x whose shapes and control flow never change.
        guide: Its guide, whose latents are all reparameterised.
        x: Rows x; only their values may change later.
        clip: Largest norm of the gradient of all parameters together; it is scaled down to that.
        handler: Under what `elbo` is evaluated.
        unseen: An ELBO whose particles the decoder does not see, and under what it is evaluated: they take
            part in the KL terms alone, for next to nothing where the decoder is what takes time.

    Raises:
        NotCompilableError: If a latent of the guide is not reparameterised, a tensor's value is read, or elements
            are picked by a mask.
    """

    def __init__(
        self,
        elbo: Trace_ELBO,
        model: nn.Module,
        guide: nn.Module,
        x: Tensor,
        clip: float | None = None,
        handler: AbstractContextManager[Any] | None = None,
        unseen: tuple[Trace_ELBO, AbstractContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(elbo, *(unseen or ())[:1])
        self._parameters = [p for module in (model, guide) for p in module.parameters() if p.requires_grad]

        def loss_and_grads(x: Tensor) -> tuple[Tensor, ...]:
            terms, surrogate = _evaluate(elbo, handler or nullcontext(), model, guide, x)
            if unseen is not None:
                blocked = poutine.block(model, hide=["x"])
                more_terms, more_surrogate = _evaluate(*unseen, blocked, guide, x)
                share = elbo.num_particles / (elbo.num_particles + unseen[0].num_particles)
                # Both KL terms in their shares, and all of the reconstruction.
                surrogate = share * surrogate + (1.0 - share) * (terms["recon"] + more_surrogate)
                terms |= {name: torch.lerp(term, terms[name], share) for name, term in more_terms.items()}
            self.names = list(terms)
            grads = torch.autograd.grad(surrogate, self._parameters, materialize_grads=True)
            norm = nn.utils.get_total_norm(grads)
            if clip is not None:
                grads = torch._foreach_mul(grads, (clip / (norm + 1e-6)).clamp(max=1.0))
            return torch.stack([norm, *terms.values()]), *grads

        # A step does not check arguments.
        with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
            self._graph = record(loss_and_grads, x)
        keep_freed_memory()

    def __call__(self, model: nn.Module, guide: nn.Module, x: Tensor) -> float:
        """Set each parameter's gradient; return the loss, the negative ELBO summed over rows, nats.

        Raises:
            ArithmeticError: If the loss or the gradient is not finite.
        """
        with torch.no_grad():
            figures, *grads = self._graph(x)
        norm, *self._values = figures.tolist()
        loss: float = sum(self._values)
        _check_finite(loss, norm)
        for parameter, grad in zip(self._parameters, grads, strict=True):
            parameter.grad = grad
        return loss


class EagerELBO(_Estimator):
    """What ``SVI(..., loss_and_grads=...)`` takes, for any Pyro ELBO: evaluated as it is, its gradient clipped.

    Arguments:
        elbo: An objective.
        parameters: What is trained.
        clip: Largest norm of the gradient of all parameters together; it is scaled down to that.
        handler: Under what `elbo` is evaluated.
    """

    def __init__(
        self,
        elbo: ELBO,
        parameters: Sequence[nn.Parameter],
        clip: float | None = None,
        handler: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(elbo)
        self._elbo, self._parameters = elbo, [p for p in parameters if p.requires_grad]
        self._clip, self._handler = clip, handler or nullcontext()

    def __call__(self, model: nn.Module, guide: nn.Module, x: Tensor) -> float:
        """Set each parameter's gradient; return the loss summed over rows, nats.

        Raises:
            ArithmeticError: If the loss or the gradient is not finite.
            InputError: If the objective raises anything else.
        """
        for parameter in self._parameters:
            parameter.grad = None
        try:
            with self._handler:
                loss = _loss_and_grads(self._elbo, model, guide, x)
        except (ArithmeticError, InputError):
            raise
        except Exception as error:  # whatever a user's class raises
            raise InputError(
                f"the objective, a {type(self._elbo).__name__}, fails: {type(error).__name__}: {error}"
            ) from error
        # Wake-sleep has a loss for the model, which is the bound, and one for the guide.
        bound = float(loss[0] if isinstance(loss, tuple) else loss)
        norm = nn.utils.clip_grad_norm_(self._parameters, math.inf if self._clip is None else self._clip)
        _check_finite(bound, float(norm))
        return bound


def _loss_and_grads(elbo: ELBO, model: nn.Module, guide: nn.Module, x: Tensor) -> Any:
    """Set gradients by whichever of a class's two ways to them it overrides last; the loss."""

    def depth(name: str) -> int:
        return next(i for i, base in enumerate(type(elbo).__mro__) if name in vars(base))

    if hasattr(elbo, "differentiable_loss") and depth("differentiable_loss") < depth("loss_and_grads"):
        loss = elbo.differentiable_loss(model, guide, x)
        loss.backward()
        return loss.detach()
    return elbo.loss_and_grads(model, guide, x)


def _check_finite(loss: float, norm: float) -> None:
    for what, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise ArithmeticError(f"the {what} is not finite")


def _evaluate(
    elbo: Trace_ELBO, handler: AbstractContextManager[Any], model: Any, guide: nn.Module, x: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The terms of the negative ELBO, and what is differentiated in place of their sum; means over particles."""
    with handler:
        model_trace, guide_trace = particle_traces(elbo, model, guide, (x,), {})
    model_sites, guide_sites = dict(sample_sites(model_trace)), dict(sample_sites(guide_trace))
    log_p = {name: site["log_prob_sum"] for name, site in model_sites.items()}
    terms = {"recon": -log_p["x"]} if "x" in log_p else {}
    surrogate = -sum(log_p.values())
    for name, site in sorted(guide_sites.items()):
        _, score_function, entropy = site["score_parts"]
        if not is_identically_zero(score_function):
            raise NotCompilableError(f"the guide's latent {name!r} is not reparameterised")
        terms[name.replace("z", "kl")] = site["log_prob_sum"] - log_p[name]
        surrogate = surrogate + (0.0 if is_identically_zero(entropy) else entropy.sum())
    count = elbo.num_particles
    return {name: term / count for name, term in terms.items()}, surrogate / count


def check_step(config: Config) -> None:
    """Refuse a step that would take more memory than there is.

    It holds its logits and the hidden layers' values, and the gradients of both.
    """
    recipe, ndims = config.recipe, config.ndims
    rows, seen = recipe.rows * recipe.samples, recipe.rows * recipe.samples
    if recipe.particles:
        words = 2**config.bits
        rows, seen = words * recipe.particles, words * recipe.seen(ndims, words=words)
    widths = recipe.arch.width_x + (config.layers - 1) * recipe.arch.width_z
    values = seen * ndims + rows * recipe.arch.hidden_layers * widths
    check_memory(
        2 * DTYPES[config.dtype].itemsize * values,
        f"a step on {rows} draws of the latents, {seen} of them with {ndims} logits each,",
    )


def make_estimator(
    model: nn.Module, guide: nn.Module, data: BitsData, recipe: Recipe, wide: int
) -> tuple[CompiledELBO | EagerELBO, Tensor, int]:
    """What estimates the loss and sets its gradient, the rows x that it takes, and what its loss is divided by.

    Arguments:
        model: A model.
        guide: Its guide.
        data: The codewords.
        recipe: Its objective, particles and noise.
        wide: How many latents' lattice noise is drawn wide, the first ones.
    """
    parameters = [*model.parameters(), *guide.parameters()]
    objective = OBJECTIVES[recipe.objective]
    # A gradient by the score has no use for noise that is given, and none for weights.
    if recipe.particles and _is_reparameterised(guide, data.codewords):
        # The codewords, each with its probability: the loss is per datum already.
        x, seen = data.codewords, recipe.seen(data.ndims, wide, len(data.probs))

        def on_lattice(particles: int) -> tuple[Any, LatticeNoise]:
            return objective(particles), LatticeNoise(particles, data.probs, recipe.noise_width, wide)

        elbo, noise = on_lattice(seen)
        unseen = on_lattice(recipe.particles - seen) if seen < recipe.particles else None
        try:
            return CompiledELBO(elbo, model, guide, x, recipe.clip, noise, unseen), x, 1
        except NotCompilableError:
            return EagerELBO(elbo, parameters, recipe.clip, noise), x, 1
    x = data.rows(recipe.rows)
    elbo = objective(recipe.samples)
    if objective.recorded:
        with suppress(NotCompilableError):
            return CompiledELBO(elbo, model, guide, x, recipe.clip), x, recipe.rows
    return EagerELBO(elbo, parameters, recipe.clip), x, recipe.rows


def _is_reparameterised(guide: nn.Module, x: Tensor) -> bool:
    """Whether gradients pass through all of a guide's samples."""
    with torch.no_grad():
        sites = Program("guide", guide, x.double()).sites.values()
    return all(site["fn"].has_rsample for site in sites)
