"""The truth about a model and a guide, by quadrature in float64."""

from pyro_onebit.exact.densities import (
    BLOCK,
    GuideLike,
    Latents,
    ModelLike,
    draw_q,
    float64_copy,
    log_likelihood,
    log_p_x,
    log_q_z1,
    log_standard_normal,
    log_weight,
    sample_sites,
)
from pyro_onebit.exact.evaluation import Evaluation, evaluate, finite, posterior_checks
from pyro_onebit.exact.importance_weights import WeightLaw, law_of_one_latent
from pyro_onebit.exact.joint import Joint, draw_posterior, solve_joint
from pyro_onebit.exact.limits import GaussianOptimum, gaussian_optimum, optimum
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.nodes import one_layer_grid, two_layer_grids
from pyro_onebit.exact.solver import TOLERANCE, Truth, solve, tabulate

__all__ = [
    "BLOCK",
    "TOLERANCE",
    "Evaluation",
    "GaussianOptimum",
    "GuideLike",
    "Joint",
    "Latents",
    "Marginal",
    "ModelLike",
    "Truth",
    "WeightLaw",
    "draw_posterior",
    "draw_q",
    "evaluate",
    "finite",
    "float64_copy",
    "gaussian_optimum",
    "law_of_one_latent",
    "log_likelihood",
    "log_p_x",
    "log_q_z1",
    "log_standard_normal",
    "log_weight",
    "one_layer_grid",
    "optimum",
    "posterior_checks",
    "sample_sites",
    "solve",
    "solve_joint",
    "tabulate",
    "two_layer_grids",
]
