"""A monotone spline as a transform."""

from __future__ import annotations

from typing import Any

from pyro.distributions.transforms.spline import ConditionedSpline
from torch import Tensor

from pyro_onebit.internals import WhereForMasks

#: The least height of a spline's bin, as a share of all, and the least slope at its knots.
FLATTEST = 1e-4


class IncreasingSpline(ConditionedSpline):
    """Pyro's spline, saying that it increases, as a distribution function needs to know, and in fixed shapes."""

    sign = 1

    def spline_op(self, x: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The spline or its inverse at x, and its log derivative."""
        with WhereForMasks():
            # What it has for least heights and slopes is more than a posterior's cut leaves room for; with less,
            # single precision does not do.
            y, log_slope = super().spline_op(x.double(), min_bin_height=FLATTEST, min_derivative=FLATTEST, **kwargs)
        return y.to(x.dtype), log_slope.to(x.dtype)
