"""The same training in other hands: what `training.py` measures the package against.

Each peer is a module with a function ``train(work)``. Nothing is imported here, so that a peer without torch does
not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

#: How often a run's parameters are looked at, evenly spaced over its steps.
CHUNKS = 20
#: What `train` yields after each chunk of steps: each network's weights ``(out, in)`` and biases in turn, from its
#: input to its output, as anything numpy can read (a Gaussian's last layer gives mean and raw variance); and the mean
#: of the chunk's losses, nats per datum.
Chunks = Iterator[tuple[dict[str, Sequence[Any]], float]]


@dataclass(frozen=True)
class Work:
    """What a contender trains, and on how many threads; from `rows` on the reference settings, for the peers.

    The steps are a multiple of `CHUNKS`. Half of the rows are of each codeword. After each step the learning rate is
    multiplied by `decay`. A network's `sizes` go from its input to its output, and every variance is `min_variance`
    larger than the network says.
    """

    contender: str
    layers: int
    ndims: int
    seed: int
    threads: int
    steps: int
    rows: int
    lr: float
    decay: float
    sizes: dict[str, list[int]]
    min_variance: float
