"""How noisy an objective's gradient is, for the model and the guide apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError
from pyro_onebit.registry import OBJECTIVES
from pyro_onebit.reproducibility import check_seed


@dataclass(frozen=True)
class GradientNoise:
    r"""Moments of a gradient's estimates, over the parameters of one module.

    Arguments:
        mean: Each parameter's mean gradient, shape ``(parameters,)``.
        variance: Each one's variance, shape ``(parameters,)``.
        signal_squared: The squared norm of the expected gradient, without bias: the mean product of two different
            estimates. (The squared norm of the mean of R estimates is too large by the total variance over R.) Where
            the signal is lost in the noise it may be negative.
        signal_squared_error: Its standard error, by the jackknife; infinite from fewer than three estimates.
    """

    mean: Tensor
    variance: Tensor
    signal_squared: float
    signal_squared_error: float

    @property
    def total_variance(self) -> float:
        """The sum of the variances over parameters, nats² per unit of parameter²."""
        return float(self.variance.sum())

    @property
    def signal_to_noise(self) -> float:
        r"""The norm of the expected gradient over the root of the total variance; infinite where there is no noise.

        Of all parameters together, as an optimiser's step sees them; Rainforth et al. (2018) take each alone. Zero
        where no signal is seen; whether one is, says `is_told`.
        """
        variance = self.total_variance
        return math.sqrt(max(self.signal_squared, 0.0) / variance) if variance > 0 else math.inf

    @property
    def is_told(self) -> bool:
        """Whether the signal is told from nought, by three standard errors."""
        return self.signal_squared > 3.0 * self.signal_squared_error


def _moments(estimates: Tensor) -> GradientNoise:
    """Moments of estimates ``(repeats, parameters)``."""
    count = len(estimates)
    products = estimates @ estimates.T
    rows, own, total = products.sum(1), products.diagonal(), products.sum()
    signal = (total - own.sum()) / (count * (count - 1))
    error = math.inf
    if count > 2:
        without = (total - 2.0 * rows + own - (own.sum() - own)) / ((count - 1) * (count - 2))
        error = math.sqrt(float((without - without.mean()).square().sum()) * (count - 1) / count)
    return GradientNoise(estimates.mean(0), estimates.var(0), float(signal), error)


def gradient_noise(
    model: nn.Module,
    guide: nn.Module,
    data: BitsData,
    objective: str,
    particles: int,
    *,
    rows: int = 2,
    repeats: int = 200,
    seed: int = 0,
) -> dict[str, GradientNoise]:
    """The gradient of a training objective, per datum, estimated again and again at fixed parameters.

    Arguments:
        model: A Pyro model of rows x.
        guide: Its guide.
        data: The codewords.
        objective: A key of `registry.OBJECTIVES`.
        particles: Samples of the latents a row, K.
        rows: Rows x an estimate.
        repeats: Estimates.
        seed: Random seed for the noise; torch's generator is left as it was.

    Returns:
        Under ``model`` and ``guide`` each one's moments.

    Raises:
        InputError: If `repeats` is below 2.
    """
    if repeats < 2:
        raise InputError(f"repeats is {repeats}; a variance needs at least 2")
    check_seed(seed)
    elbo, x = OBJECTIVES.find(objective)(particles), data.rows(rows)
    modules = {"model": model, "guide": guide}
    estimates: dict[str, list[Tensor]] = {name: [] for name in modules}
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for _ in range(repeats):
            for module in modules.values():
                module.zero_grad(set_to_none=True)
            elbo.loss_and_grads(model, guide, x)
            for name, module in modules.items():
                grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in module.parameters()]
                flat = torch.cat([g.flatten() for g in grads]) if grads else torch.zeros(0)
                estimates[name].append(flat.double() / rows)
        for module in modules.values():
            module.zero_grad(set_to_none=True)
    return {name: _moments(torch.stack(values)) for name, values in estimates.items()}
