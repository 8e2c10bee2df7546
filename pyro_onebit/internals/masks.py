"""torch: indexing by a mask, made elementwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WhereForMasks(TorchFunctionMode):
    """Lets ``a[mask] = b[mask]`` choose elementwise, so that no shape depends on values and a step can be compiled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and getattr(args[1], "dtype", None) == torch.bool:
            if func is Tensor.__getitem__:
                return args[0]
            return args[0].copy_(torch.where(args[1], args[2], args[0]))
        return func(*args, **(kwargs or {}))
