import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy import stats

from pyro_onebit import BitsData, Codebook, InputError, OneBitData
from pyro_onebit.data import deal, gray_code, ideal_threshold, words_of


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


def test_bits_are_the_digits_of_a_codeword() -> None:
    data = BitsData((3, 1), (0.2, 0.5))
    assert data.codewords.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert data.probs.tolist() == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert data.names == ("00", "01", "10", "11")
    assert data.entropy == pytest.approx(-float(data.probs @ data.probs.log()), abs=1e-15)
    assert data.separate_entropy == pytest.approx(3 * OneBitData(1, 0.2).entropy + math.log(2.0))


def test_one_bit_is_the_case_of_one_number() -> None:
    one, same = OneBitData(4, 0.3), BitsData((4,), 0.3)
    assert torch.equal(one.codewords, same.codewords)
    assert torch.equal(one.probs, same.probs)
    assert (one.entropy, one.ndims, one.prob) == (same.entropy, same.ndims, same.prob)
    assert torch.equal(one.rows(1000), same.rows(1000))


def test_rows_of_many_codewords_have_their_shares() -> None:
    data = Codebook([[0, 0, 1], [1, 0, 1], [1, 1, 1]], (0.5, 0.3, 0.2))
    rows = data.rows(1000)
    assert [int((rows == word).all(1).sum()) for word in data.codewords] == [500, 300, 200]


def test_neighbours_in_a_gray_code_differ_in_one_bit_and_the_lightest_most_often() -> None:
    for repeats in ((7,), (2, 9), (5, 5, 5), (1, 2, 3, 4)):
        words = words_of(len(repeats))
        order = gray_code(repeats)
        assert sorted(order) == list(range(2 ** len(repeats)))
        changes = [[a != b for a, b in zip(words[c], words[d], strict=True)] for c, d in pairwise(order)]
        assert all(sum(change) == 1 for change in changes)
        often = [sum(change[j] for change in changes) for j in range(len(repeats))]
        assert often[repeats.index(max(repeats))] == 1
    assert deal(7, 3) == (3, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitsData(()), "repeats is"),
        (lambda: BitsData((1, 0)), "repeats is 1 0; it must be 1 to 4 whole numbers"),
        (lambda: BitsData((1,) * 5), "repeats is"),
        (lambda: BitsData((2, 2), (0.5,)), "probs has 1 numbers"),
        (lambda: BitsData((2, 2), 1.0), "prob is 1.0"),
        (lambda: BitsData((2, 2), (0.5, 0.4)).prob, "take one for all"),
        (lambda: Codebook([[0, 1], [0, 1]]), "distinct"),
        (lambda: Codebook([[0, 1], [2, 1]]), "zeros and ones"),
        (lambda: Codebook([[0, 1], [1, 1]], (0.5, 0.4)), "sum to 1"),
    ],
)
def test_what_is_no_data_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
