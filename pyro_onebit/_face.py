"""What a script imports from the package by name."""

from __future__ import annotations

from pyro_onebit.brought import DensityGuide
from pyro_onebit.data import BitsData, Codebook, OneBitData
from pyro_onebit.errors import InputError, ProgramError, TrainingError
from pyro_onebit.guides import GaussianGuide, Guide, OneLayerGuide, TwoLayerGuide, register_guide
from pyro_onebit.models import Model, OneLayerModel, TwoLayerModel, register_model
from pyro_onebit.registry import GUIDES, MODELS, OBJECTIVES, RECIPES
from pyro_onebit.studies import load_run, save_run, to_inference_data
from pyro_onebit.training import Config, Recipe, Run, build, fit, register_objective, register_recipe

__all__ = [
    "GUIDES",
    "MODELS",
    "OBJECTIVES",
    "RECIPES",
    "BitsData",
    "Codebook",
    "Config",
    "DensityGuide",
    "GaussianGuide",
    "Guide",
    "InputError",
    "Model",
    "OneBitData",
    "OneLayerGuide",
    "OneLayerModel",
    "ProgramError",
    "Recipe",
    "Run",
    "TrainingError",
    "TwoLayerGuide",
    "TwoLayerModel",
    "build",
    "fit",
    "load_run",
    "register_guide",
    "register_model",
    "register_objective",
    "register_recipe",
    "save_run",
    "to_inference_data",
]
