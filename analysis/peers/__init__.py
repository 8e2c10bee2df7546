"""The same training in other hands: what `benchmark_training.py` measures the package against.

Each peer is a module with ``train(work, on_chunk)``, which trains and calls ``on_chunk(snapshot, loss)``
after every chunk of steps, and ``layers(snapshot)``, which says what the snapshot's networks are.
Nothing is imported here, so that a peer without torch does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Layers", "OnChunk", "Work"]

#: Called after each chunk of steps with a snapshot of the parameters (in the peer's own form, cheap
#: to take) and the mean of the chunk's losses, in nats per datum.
OnChunk = Callable[[Any, float], None]

#: Each network's linear layers from its input to its output: weight ``(out, in)`` and bias
#: ``(out,)``, as anything numpy can read. A Gaussian's last layer gives mean and raw variance.
Layers = dict[str, list[tuple[Any, Any]]]


@dataclass(frozen=True)
class Work:
    """What a peer trains; the sizes and rates are the reference settings'.

    Arguments:
        ndims: Dimensions of x.
        layers: Latent layers, 1 or 2.
        seed: Seed of parameters and noise.
        steps: Steps of Adam, a multiple of `chunks`.
        rows: Rows of the batch, half of them of each codeword.
        lr: First learning rate; it decays exponentially.
        lr_final: Last learning rate.
        width_x: Width of the hidden layers between x and z1.
        width_z: Width of the hidden layers between z1 and z2.
        hidden_layers: Hidden layers of each network.
        min_variance: Added to every variance.
        chunks: How often `on_chunk` is called.
    """

    ndims: int
    layers: int
    seed: int
    steps: int
    rows: int
    lr: float
    lr_final: float
    width_x: int
    width_z: int
    hidden_layers: int
    min_variance: float
    chunks: int

    @property
    def decay(self) -> float:
        """What the learning rate is multiplied by after each step."""
        return float((self.lr_final / self.lr) ** (1.0 / self.steps))

    @property
    def networks(self) -> dict[str, tuple[int, int, int]]:
        """Input dimension, hidden width and output dimension of each network."""
        between_x_and_z1 = {"q_z1": (self.ndims, self.width_x, 2), "p_x": (1, self.width_x, self.ndims)}
        between_z1_and_z2 = {"q_z2": (1, self.width_z, 2), "p_z1": (1, self.width_z, 2)}
        return between_x_and_z1 | (between_z1_and_z2 if self.layers == 2 else {})
