"""torch: `__torch_function__` sees indexing, so that it can be made elementwise."""

import torch

from pyro_onebit.internals import WhereForMasks


def test_assigning_by_a_mask_gives_the_same_elements() -> None:
    values, other = torch.arange(6.0), -torch.arange(6.0)
    mask = values > 2

    def by_mask() -> torch.Tensor:
        result = values.clone()
        result[mask] = other[mask]
        return result

    expected = by_mask()
    with WhereForMasks():
        assert torch.equal(by_mask(), expected)


def test_other_indices_are_left_alone() -> None:
    values = torch.arange(6.0)
    with WhereForMasks():
        assert values[2] == 2.0
        assert values[torch.tensor([1, 3])].tolist() == [1.0, 3.0]
