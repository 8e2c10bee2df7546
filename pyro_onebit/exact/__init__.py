"""The truth about a model and a guide, by quadrature in float64: about any two Pyro programs, as they are."""

from pyro_onebit.exact.densities import BLOCK, DataLike, Densities, Pair
from pyro_onebit.exact.evaluation import Evaluation, evaluate, finite, posterior_checks
from pyro_onebit.exact.importance_weights import WeightLaw, law_of_one_latent
from pyro_onebit.exact.joint import Joint, draw_posterior, solve_joint
from pyro_onebit.exact.limits import GaussianOptimum, gaussian_optimum, optimum
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.programs import Conditional, Latents, Program, float64_copy
from pyro_onebit.exact.solver import TOLERANCE, Truth, kl_name, solve, tabulate

__all__ = [
    "BLOCK",
    "TOLERANCE",
    "Conditional",
    "DataLike",
    "Densities",
    "Evaluation",
    "GaussianOptimum",
    "Joint",
    "Latents",
    "Marginal",
    "Pair",
    "Program",
    "Truth",
    "WeightLaw",
    "draw_posterior",
    "evaluate",
    "finite",
    "float64_copy",
    "gaussian_optimum",
    "kl_name",
    "law_of_one_latent",
    "optimum",
    "posterior_checks",
    "solve",
    "solve_joint",
    "tabulate",
]
