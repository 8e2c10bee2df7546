"""What a guide's errors look like."""

from pyro_onebit.diagnostics.calibration import Calibration, calibration_curve, simulate_calibration
from pyro_onebit.diagnostics.elbo_surgery import surgery, tail_index
from pyro_onebit.diagnostics.gaps import GapSplit, gap_split, ideal_gap
from pyro_onebit.diagnostics.gradients import GradientNoise, gradient_noise
from pyro_onebit.diagnostics.psis import KHAT_MINIMUM, is_arviz_1, khat, khat_threshold, load_arviz
from pyro_onebit.diagnostics.samples import SampleComparison, compare_samples

__all__ = [
    "KHAT_MINIMUM",
    "Calibration",
    "GapSplit",
    "GradientNoise",
    "SampleComparison",
    "calibration_curve",
    "compare_samples",
    "gap_split",
    "gradient_noise",
    "ideal_gap",
    "is_arviz_1",
    "khat",
    "khat_threshold",
    "load_arviz",
    "simulate_calibration",
    "surgery",
    "tail_index",
]
