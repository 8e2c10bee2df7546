"""What the last digit of a result depends on beside its inputs: seeds, threads, and settings of torch and numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

import numpy as np
import torch

from pyro_onebit.errors import InputError

__all__ = ["check_seed", "default_dtype", "one_thread", "seeded", "tensors_on", "usual_arithmetic"]

#: torch and Pyro have one state for all threads of a process.
_ALONE = RLock()


def check_seed(seed: int) -> None:
    """Refuse what torch's and numpy's generators do not both take, with an `InputError`."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}; it must be a whole number from 0 to 2^63 - 1")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws within come from a seed, and need no gradient; torch's generator is afterwards as it was.

    Raises:
        InputError: If the seed is out of range.
    """
    check_seed(seed)
    with _ALONE, torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


@contextmanager
def _setting(value: Any, get: Callable[[], Any], put: Callable[[Any], None]) -> Iterator[None]:
    """Within, one of torch's settings has this value."""
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def one_thread() -> AbstractContextManager[None]:
    """How a sum is split among threads changes its last digit: within, torch has one."""
    return _setting(1, torch.get_num_threads, torch.set_num_threads)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    """Within, torch makes tensors of this type where none is named."""
    return _setting(dtype, torch.get_default_dtype, torch.set_default_dtype)


@contextmanager
def usual_arithmetic() -> Iterator[None]:
    """Within, this thread alone computes, on one of torch's threads, and as if the caller had set nothing.

    That is: gradients are recorded, nothing is in inference mode or autocast, tensors are made on the processor,
    products of matrices have their full precision, and numpy warns of what it warns of by default.
    """
    with (
        _ALONE,
        _setting("highest", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        one_thread(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        tensors_on("cpu"),
        np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
    ):
        yield


def tensors_on(device: str) -> AbstractContextManager[Any]:
    """Within, torch makes tensors on this device where none is named.

    A device as a context sees each operation in Python, which takes as long as a small one; it is none where nothing
    else has been set.
    """
    own = torch.device(device)
    # Before 2.7 `torch.get_default_device` knows of no device that is set as a context.
    return nullcontext() if torch.empty(0).device == own else own
