"""From a configuration to a trained, judged run."""

from pyro_onebit.internals import AdjustedTraces
from pyro_onebit.training.config import (
    DEFAULT_GUIDES,
    DEFAULT_MODELS,
    DTYPES,
    IDENTITY,
    Config,
    differences,
    identity_of,
)
from pyro_onebit.training.fitting import fit
from pyro_onebit.training.lattice import LatticeNoise, lattice_noise, lattice_points, lattice_weights
from pyro_onebit.training.objectives import (
    AnnealedELBO,
    BetaELBO,
    DoublyReparameterised,
    FreeBitsELBO,
    Objective,
    RowwiseWakeSleep,
    StickingTheLanding,
    register_objective,
)
from pyro_onebit.training.optimizers import SOAP, OneOptimizer, make_optimizers
from pyro_onebit.training.recipes import FirstStage, Recipe, register_recipe
from pyro_onebit.training.run import AnyConfig, Checkpoint, Run, build, first_layer, learned_start
from pyro_onebit.training.step import CompiledELBO, EagerELBO

__all__ = [
    "DEFAULT_GUIDES",
    "DEFAULT_MODELS",
    "DTYPES",
    "IDENTITY",
    "SOAP",
    "AdjustedTraces",
    "AnnealedELBO",
    "AnyConfig",
    "BetaELBO",
    "Checkpoint",
    "CompiledELBO",
    "Config",
    "DoublyReparameterised",
    "EagerELBO",
    "FirstStage",
    "FreeBitsELBO",
    "LatticeNoise",
    "Objective",
    "OneOptimizer",
    "Recipe",
    "RowwiseWakeSleep",
    "Run",
    "StickingTheLanding",
    "build",
    "differences",
    "first_layer",
    "fit",
    "identity_of",
    "lattice_noise",
    "lattice_points",
    "lattice_weights",
    "learned_start",
    "make_optimizers",
    "register_objective",
    "register_recipe",
]
