"""Memory is known, and what would take more is refused."""

from __future__ import annotations

import gc

import pytest

from pyro_onebit import InputError
from pyro_onebit.system import available_memory, check_memory, uncollected


def test_memory_is_what_the_system_says() -> None:
    free = available_memory()
    assert 0 < free < 2**60
    check_memory(free / 2, "half of it")
    with pytest.raises(InputError, match="twice as much needs"):
        check_memory(2 * free, "twice as much")


def test_garbage_is_looked_for_again_afterwards_but_not_among_what_was_there() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
