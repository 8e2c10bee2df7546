"""Generative programs (decoders)."""

from pyro_onebit.models.base import Model, register_model
from pyro_onebit.models.learned_prior import LearnedPriorModel
from pyro_onebit.models.one_layer import OneLayerModel
from pyro_onebit.models.two_layer import TwoLayerModel

__all__ = ["LearnedPriorModel", "Model", "OneLayerModel", "TwoLayerModel", "register_model"]
