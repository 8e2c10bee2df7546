"""The truth about a model and a guide, by quadrature in float64: about any two Pyro programs, as they are."""

from pyro_onebit.exact.evaluation import Evaluation, evaluate, finite, posterior_checks
from pyro_onebit.exact.importance_weights import WeightLaw
from pyro_onebit.exact.joint import Joint, draw_posterior, solve_joint
from pyro_onebit.exact.limits import GaussianOptimum, gaussian_optimum, optimum, quantile_places
from pyro_onebit.exact.marginal import Marginal
from pyro_onebit.exact.solver import Truth, kl_name, solve, tabulate

__all__ = [
    "Evaluation",
    "GaussianOptimum",
    "Joint",
    "Marginal",
    "Truth",
    "WeightLaw",
    "draw_posterior",
    "evaluate",
    "finite",
    "gaussian_optimum",
    "kl_name",
    "optimum",
    "posterior_checks",
    "quantile_places",
    "solve",
    "solve_joint",
    "tabulate",
]
