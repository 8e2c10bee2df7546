"""The one-bit VAE: an exactly solvable testbed for amortised variational inference."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyro_onebit import bounds, diagnostics, exact
from pyro_onebit.brought import DensityGuide
from pyro_onebit.data import BitsData, Codebook, OneBitData
from pyro_onebit.errors import InputError, ProgramError, TrainingError
from pyro_onebit.guides import GaussianGuide, Guide, OneLayerGuide, TwoLayerGuide, register_guide
from pyro_onebit.models import Model, OneLayerModel, TwoLayerModel, register_model
from pyro_onebit.registry import GUIDES, MODELS, OBJECTIVES, RECIPES
from pyro_onebit.studies import load_run, save_run, to_inference_data
from pyro_onebit.training import Config, Recipe, Run, build, fit, register_objective, register_recipe

if TYPE_CHECKING:
    from pyro_onebit import coding, plots

    __version__: str

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
    "bounds",
    "build",
    "coding",
    "diagnostics",
    "exact",
    "fit",
    "load_run",
    "plots",
    "register_guide",
    "register_model",
    "register_objective",
    "register_recipe",
    "save_run",
    "to_inference_data",
]

#: Rooms that need libraries of their own, and are imported when they are used.
_LAZY = ("coding", "plots")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("pyro-onebit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
