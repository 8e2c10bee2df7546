r"""Where the noise of a reparameterised guide comes from.

A step of training needs two expectations over standard normal noise. Independent draws would do;
a randomly shifted lattice does it with a fraction of the variance. The first latent's noise is
drawn from a normal wider than its own and weighted by the ratio of the two densities: what happens
five standard deviations out (a reconstruction that fails in a thousand dimensions at once) then
enters every step with its small weight, rather than one step in a million with weight one.
"""

from __future__ import annotations

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

    Wrap it around the evaluation of an ELBO with `particles` vectorised particles on the two
    codewords. Sites are scaled so that the ELBO becomes
    :math:`\sum_c p_c \sum_i w_{ci} f(x_c, \epsilon_{ci})`, with the weights of each codeword
    summing to 1: an estimate in nats per datum.

    Arguments:
        particles: Number of particles for each codeword.
        probs: The codewords' probabilities, shape ``(2,)``.
        width: Standard deviation the first latent's noise is drawn with.
    """

    def __init__(self, particles: int, probs: Tensor, width: float) -> None:
        super().__init__()
        self.particles = particles
        self.probs = probs.to(torch.get_default_dtype())
        self.width = width
        self._points = [lattice_points(particles, latent) for latent in range(2)]

    def __enter__(self) -> LatticeNoise:
        self._latent = 0
        self._scale = self.probs
        super().__enter__()
        return self

    def _pyro_sample(self, msg: Message) -> None:
        if site_is_subsample(msg):
            return
        if not msg["done"] and not msg["is_observed"]:
            self._draw(msg)
        msg["scale"] = msg["scale"] * self._scale

    def _draw(self, msg: Message) -> None:
        first, points = self._latent == 0, self._points[min(self._latent, 1)]
        self._latent += 1
        noise = lattice_noise(points, len(self.probs))
        wide = self.width * noise if first else noise
        value = sample_from_noise(msg["fn"], wide[..., None])
        if value is None:
            return
        if first:
            weight = lattice_weights(wide, self.width)
            self._scale = self.particles * self.probs * weight / weight.sum(0)
        msg["value"] = value
        msg["done"] = True
