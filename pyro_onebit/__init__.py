"""The one-bit VAE: an exactly solvable testbed for amortised variational inference."""

from pyro_onebit import exact
from pyro_onebit.config import Config
from pyro_onebit.data import InputError, OneBitData
from pyro_onebit.guides import GUIDES, GaussianGuide, OneLayerGuide, TwoLayerGuide, register_guide
from pyro_onebit.inference_data import to_inference_data
from pyro_onebit.models import OneLayerModel, TwoLayerModel
from pyro_onebit.runs import load_run, save_run
from pyro_onebit.training import Run, TrainingError, build, fit

__all__ = [
    "GUIDES",
    "Config",
    "GaussianGuide",
    "InputError",
    "OneBitData",
    "OneLayerGuide",
    "OneLayerModel",
    "Run",
    "TrainingError",
    "TwoLayerGuide",
    "TwoLayerModel",
    "build",
    "exact",
    "fit",
    "load_run",
    "register_guide",
    "save_run",
    "to_inference_data",
]
