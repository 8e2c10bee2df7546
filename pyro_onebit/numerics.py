"""What a result's last digit hangs on beside its inputs, set for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["default_dtype", "one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """How a sum is split among threads changes its last digit: within, torch has one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within, torch makes tensors of this type where none is named."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
