"""What can be said of runs: a command line reads it here, before torch and all else is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

__all__ = ["OWN_NAMES", "Device", "Dtype", "GridSettings", "RunSettings", "Schedule", "Settings", "StartName"]

StartName = Literal["random", "analytic"]
Schedule = Literal["exponential", "linear", "cosine", "constant"]
Dtype = Literal["float32", "float64"]
Device = Literal["cpu", "cuda"]

#: What the registries hold, by kind, before anything is brought: a help text says it, and imports nothing for that.
OWN_NAMES = {
    "model": ("one_layer", "learned_prior", "two_layer"),
    "guide": (
        *("gaussian", "mixture", "flow", "truncated", "prior", "oracle"),  # with one layer
        *("two_layer", "two_layer_skip", "top_down", "mean_field"),
    ),
    "objective": ("elbo", "stl", "iwae", "renyi", "dreg", "rws", "beta", "annealed", "free_bits"),
    "preset": ("default", "thorough", "reference"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the runs of a study have in common.

    Arguments:
        bits: Bits of information, 1 to 4, among which the dimensions are dealt as evenly as possible.
        repeats: In how many dimensions each bit is repeated, in place of `bits` and of a number of dimensions; if not
            given, as evenly as possible.
        prob: Probability that a bit is 1.
        start: Where the Gaussian guides' training starts: ``random``, from random weights, in two stages; ``analytic``,
            around the best Gaussian q(z1|x), as it is known.
        preset: The recipe: the default, the same with more steps (thorough), the original experiment's (reference).
        steps: Steps, if not the recipe's.
        lr: First learning rate, if not the recipe's.
        particles: Samples of the latents for each row, if not the recipe's: K of a bound on several; on a lattice, all.
        noise_width: Standard deviation with which the first latents' lattice noise is drawn, if not the recipe's.
        width_x: Width of the hidden layers between x and z1, if not the recipe's.
        width_z: Width of the hidden layers between z1 and z2, if not the recipe's.
        hidden_layers: Hidden layers of each network, if not the recipe's.
        optimizer: An optimizer of torch.optim or pyro.optim, SGD(momentum=0.9) say, if not the recipe's.
        schedule: How the learning rate decays, if not the recipe's way.
        dtype: Precision of the training; judging is in float64 always.
        device: Where to train.
    """

    bits: int = 1
    repeats: tuple[int, ...] | None = None
    prob: float = 0.5
    start: StartName = "random"
    preset: str = field(default="default", metadata={"registered": "preset"})
    steps: int | None = None
    lr: float | None = None
    particles: int | None = None
    noise_width: float | None = None
    width_x: int | None = None
    width_z: int | None = None
    hidden_layers: int | None = None
    optimizer: str | None = None
    schedule: str | None = field(default=None, metadata={"names": get_args(Schedule)})
    dtype: Dtype = "float32"
    device: Device = "cpu"


@dataclass(frozen=True)
class RunSettings(Settings):
    """What is said of one run: `Config` is what comes of it.

    Arguments:
        ndims: Dimensions of x.
        layers: Latent layers, 1 or 2.
        model: The model (decoder); if none is given, the number of layers' own.
        guide: The guide (encoder); if none is given, the number of layers' own.
        objective: What training maximises; if none is given, the preset's. Every run is judged on the plain ELBO.
        seed: Seed of the initial parameters and of all noise.
    """

    ndims: int = 5
    layers: int = 1
    model: str | None = field(default=None, metadata={"registered": "model"})
    guide: str | None = field(default=None, metadata={"registered": "guide"})
    objective: str | None = field(default=None, metadata={"registered": "objective"})
    seed: int = 0


@dataclass(frozen=True)
class GridSettings(Settings):
    """What is said of a study: `StudyGrid` makes its runs, every combination of what has several values.

    Arguments:
        ndims: Dimensions of x.
        layers: Latent layers.
        models: Models (decoders), each for its number of layers; if empty, one_layer and two_layer.
        guides: Guides (encoders), each for its number of layers; if empty, gaussian and two_layer.
        objectives: What training maximises; if empty, each recipe's own.
        seeds: Seeds.
        imports: Modules by name, and files by path (in a study's file relative to it), that register what else there is
            to choose from; the command imports them first.
    """

    ndims: tuple[int, ...] = (1, 2, 3, 5, 10, 100, 1000)
    layers: tuple[int, ...] = (1, 2)
    models: tuple[str, ...] = field(default=(), metadata={"registered": "model"})
    guides: tuple[str, ...] = field(default=(), metadata={"registered": "guide"})
    objectives: tuple[str, ...] = field(default=(), metadata={"registered": "objective"})
    seeds: tuple[int, ...] = (0,)
    # Where something is registered makes no other study.
    imports: tuple[str, ...] = field(default=(), compare=False, metadata={"flag": None})
