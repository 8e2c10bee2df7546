r"""Where the noise of a reparameterised guide comes from.

A step of training needs two expectations over standard normal noise. Independent draws would do;
a randomly shifted lattice does it with a fraction of the variance. The noise of the latent that x
depends on, and of one that is drawn before it, comes from a normal wider than their own and is
weighted by the ratio of the two densities: what happens five standard deviations out (a
reconstruction that fails in a thousand dimensions at once) then enters every step with its small
weight, rather than one step in a million with weight one.
"""

from __future__ import annotations

import math

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_onebit.distributions import sample_from_noise

#: Steps of the lattice in the second, third, … latent: irrational, so that no two nearby particles
#: of one latent are nearby in the next.
_GOLDEN = 0.6180339887498949


def lattice_points(particles: int, latent: int) -> Tensor:
    """A lattice's coordinates in the `latent`-th latent, from 0, modulo 1, shape ``(particles, 1)``."""
    steps = torch.arange(particles)[:, None]
    return steps / particles if latent == 0 else steps * _GOLDEN


def lattice_noise(points: Tensor, codewords: int) -> Tensor:
    """Standard normal noise at a lattice's points, shifted at random for each codeword, ``(particles, codewords)``."""
    uniform = ((points + torch.rand(codewords)) % 1.0).clamp(1e-6, 1.0 - 1e-6)
    return torch.special.ndtri(uniform)


def lattice_weights(noise: Tensor, width: float) -> Tensor:
    """Unnormalised weights of noise that was drawn with a standard deviation `width` in place of 1."""
    return torch.exp(-0.5 * noise.square() * (1.0 - width**-2))


class LatticeNoise(Messenger):
    r"""Gives a guide's latents lattice noise, and every site its particles' weights.

    A latent whose distribution is not known as a function of normal noise (`sample_from_noise`) draws its own.

    Wrap it around the evaluation of an ELBO with `particles` vectorised particles on the M
    codewords. Sites are scaled so that the ELBO becomes
    :math:`\sum_c p_c \sum_i w_{ci} f(x_c, \epsilon_{ci})`, with the weights of each codeword
    summing to 1: an estimate in nats per datum.

    Arguments:
        particles: Number of particles for each codeword.
        probs: The codewords' probabilities, shape ``(M,)``.
        width: Standard deviation with which the noise of the first latents is drawn.
        wide: How many these are.
    """

    def __init__(self, particles: int, probs: Tensor, width: float, wide: int = 1) -> None:
        super().__init__()
        self.particles = particles
        self.probs = probs.to(torch.get_default_dtype())
        self.width, self.wide = width, wide
        self._points = [lattice_points(particles, latent) for latent in range(2)]

    def __enter__(self) -> LatticeNoise:
        self._latent = 0
        self._wide: list[Tensor] = []
        self._weigh([])
        super().__enter__()
        return self

    def _noise(self, latent: int) -> Tensor:
        return lattice_noise(self._points[min(latent, 1)], len(self.probs))

    def _weigh(self, weights: list[Tensor]) -> None:
        self._weights, self._scale = weights, self.probs
        if weights:
            weight = math.prod(weights[1:], start=weights[0])
            self._scale = self.particles * self.probs * weight / weight.sum(0)

    def _pyro_sample(self, msg: Message) -> None:
        if site_is_subsample(msg):
            return
        if not msg["done"] and not msg["is_observed"]:
            self._draw(msg)
        msg["scale"] = msg["scale"] * self._scale

    def _draw(self, msg: Message) -> None:
        if self._latent == 0:
            # All at once: every site must have the weight of them all.
            self._wide = [self.width * self._noise(latent) for latent in range(self.wide)]
            self._weigh([lattice_weights(noise, self.width) for noise in self._wide])
        latent = self._latent
        self._latent += 1
        noise = self._wide[latent] if latent < self.wide else self._noise(latent)
        value = sample_from_noise(msg["fn"], noise[..., None])
        if value is not None:
            msg["value"] = value
            msg["done"] = True
        elif latent < self.wide:
            # It is not drawn from this noise, whose weight it must not have.
            kept = len(self._weights) - self.wide + latent
            self._weigh(self._weights[:kept] + self._weights[kept + 1 :])
