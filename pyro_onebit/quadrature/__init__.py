"""Panels, their refinement, integrals over them and over meshes of two, and what lies beyond."""

from pyro_onebit.quadrature.grid import ORDER, Grid, normal_nodes
from pyro_onebit.quadrature.mesh import Product, log_product
from pyro_onebit.quadrature.refinement import Panels, merge, refine
from pyro_onebit.quadrature.tails import Tail, tail_of

__all__ = ["ORDER", "Grid", "Panels", "Product", "Tail", "log_product", "merge", "normal_nodes", "refine", "tail_of"]
