"""Programs as they are: run under Pyro's handlers, for many values of their latents at once."""

from pyro_onebit.programs.conditional import Conditional
from pyro_onebit.programs.densities import DataLike, Densities
from pyro_onebit.programs.mesh import Mesh, blocks, slices
from pyro_onebit.programs.pair import BLOCK, Pair, base_of
from pyro_onebit.programs.program import Latents, Program, float64_copy

__all__ = [
    "BLOCK",
    "Conditional",
    "DataLike",
    "Densities",
    "Latents",
    "Mesh",
    "Pair",
    "Program",
    "base_of",
    "blocks",
    "float64_copy",
    "slices",
]
