"""A guide of two latents: q(z1|x) a mixture of two Gaussians, and q(z2|z1, x) a Gaussian whose network sees both.

python analysis/bring_two_layer_guide.py
onebit --import analysis/bring_two_layer_guide.py compare --guides two_layer mixture_skip --layers 2
"""

from __future__ import annotations

import torch
from pyro.nn import DenseNN
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import softplus

from pyro_onebit import Config, build, fit, register_guide
from pyro_onebit.distributions import NormalMixture
from pyro_onebit.guides import SkipGuide
from pyro_onebit.nn import Architecture


@register_guide("mixture_skip")
class MixtureSkipGuide(SkipGuide):
    """q(z1|x) q(z2|z1, x); the share of ones says all about x."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__()
        self.net1, self.net2 = DenseNN(1, [10, 10], [2, 2, 2]), DenseNN(2, [30, 30], [1, 1])

    def q_z1(self, x: Tensor) -> NormalMixture:
        """q(z1|x) of rows x ``(rows, ndims)``."""
        ones = x.mean(-1, keepdim=True)
        logits, locs, scales = self.net1(ones)
        return NormalMixture(logits, 2.0 * ones - 1.0 + locs, softplus(scales - 1.0) + 1e-3)

    def q_z2(self, z1: Tensor, x: Tensor) -> Normal:
        """q(z2|z1, x) of z1 ``(rows, 1)`` and rows x."""
        ones = x.mean(-1, keepdim=True)
        loc, scale = self.net2(torch.cat(torch.broadcast_tensors(z1, ones), -1))
        return Normal(z1 + loc, softplus(scale) + 1e-3)


def main(ndims: int = 5, steps: int | None = None) -> None:
    config = Config(ndims=ndims, layers=2, guide="mixture_skip", steps=steps)
    run = fit(*build(config), config, quiet=False)
    above = run.metrics["loss"] - run.data.entropy
    print(f"mixture_skip, n = {ndims}: {above:.4f} nats above the entropy")


if __name__ == "__main__":
    main()
