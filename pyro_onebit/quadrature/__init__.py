"""Panels, their refinement, integrals over them and over meshes of two, and what lies beyond."""

from pyro_onebit.quadrature.grid import ORDER, Grid, nodes_of_normals
from pyro_onebit.quadrature.mesh import Product, Terms, log_product
from pyro_onebit.quadrature.refinement import Panels, merge, refine
from pyro_onebit.quadrature.tails import Tail, tail_of

__all__ = [
    "ORDER",
    "Grid",
    "Panels",
    "Product",
    "Tail",
    "Terms",
    "log_product",
    "merge",
    "nodes_of_normals",
    "refine",
    "tail_of",
]
