"""torch: optimizers that do not import its compiler, which takes as long as to import all else of it."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class Uncompiled(Optimizer):
    """An optimizer that does not tell torch's compiler, which is not used here, to leave it alone.

    Relied on: what tells it wraps a method, and names the method that it wraps.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


class Adam(Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam`, to the last digit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
