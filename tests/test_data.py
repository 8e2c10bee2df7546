import math

import pytest
import torch
from scipy import stats

from pyro_onebit import InputError, OneBitData
from pyro_onebit.data import ideal_threshold


def test_codewords_and_entropy() -> None:
    data = OneBitData(3)
    assert data.codewords.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert data.probs.tolist() == [0.5, 0.5]
    assert data.entropy == pytest.approx(math.log(2), abs=1e-15)


@pytest.mark.parametrize("prob", [1e-6, 0.05, 0.3, 0.95])
def test_biased_entropy_is_the_expected_surprise(prob: float) -> None:
    data = OneBitData(2, prob)
    assert data.entropy == pytest.approx(stats.entropy([1 - prob, prob]), rel=1e-12)
    assert float(data.probs[1]) == prob
    assert data.probs.dtype == torch.float64


def test_threshold_leaves_prob_above() -> None:
    above = 1 - torch.special.ndtr(torch.tensor(ideal_threshold(0.1), dtype=torch.float64))
    assert float(above) == pytest.approx(0.1, abs=1e-12)
    assert ideal_threshold(0.5) == 0.0


def test_rows_hold_each_codeword_in_its_share() -> None:
    rows = OneBitData(4, 0.3).rows(1000)
    assert rows.shape == (1000, 4)
    assert rows.mean(0).tolist() == pytest.approx([0.3] * 4)


@pytest.mark.parametrize("ndims", [0, -1, 2.0, True, 10**9])
def test_ndims_out_of_range(ndims: int) -> None:
    with pytest.raises(InputError, match=r"ndims is .* whole number from 1 to"):
        OneBitData(ndims)


@pytest.mark.parametrize("prob", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_prob_out_of_range(prob: float) -> None:
    with pytest.raises(InputError, match=r"prob is .* strictly between 0 and 1"):
        OneBitData(5, prob)
