"""The bits-back codec and its container."""

from pyro_onebit.coding.codec import Codec, Rate
from pyro_onebit.coding.container import BYTES_TO_ENCODE, MAGIC, Report, pack, unpack
from pyro_onebit.coding.entropy_models import PRECISION, Pixels, Table, exact_arithmetic
from pyro_onebit.coding.schemes import Chain, Joint

__all__ = [
    "BYTES_TO_ENCODE",
    "MAGIC",
    "PRECISION",
    "Chain",
    "Codec",
    "Joint",
    "Pixels",
    "Rate",
    "Report",
    "Table",
    "exact_arithmetic",
    "pack",
    "unpack",
]
