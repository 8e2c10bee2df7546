"""Panels, their refinement, and integrals over them."""

from pyro_onebit.quadrature.grid import Grid
from pyro_onebit.quadrature.refinement import Panels, merge, refine

__all__ = ["Grid", "Panels", "merge", "refine"]
