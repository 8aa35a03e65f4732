"""Two models on the same pictures, against scipy and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError
from birder.evaluation.paired import mcnemar, paired


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (6, 5), (3, 17), (40, 60), (500, 600), (30_000, 30_400), (0, 2000)]
)
def test_the_test_is_that_of_scipy(only_a: int, only_b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(wanted, rel=1e-8, abs=1e-300)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_test_by_counting_tosses(only_a: int, only_b: int) -> None:
    total = only_a + only_b
    far = abs(only_a - only_b)
    exact = sum(math.comb(total, heads) for heads in range(total + 1) if abs(2 * heads - total) >= far) / 2**total
    assert mcnemar(only_a, only_b) == pytest.approx(exact, rel=1e-10)


def test_the_difference_and_its_interval() -> None:
    random = np.random.default_rng(0)
    right_b = random.random(2000) < 0.6
    right_a = np.where(random.random(2000) < 0.15, ~right_b, right_b)
    found = paired(right_a, right_b, draws=20_000)
    each = right_a.astype(float) - right_b
    assert (found.only_a, found.only_b) == ((each > 0).sum(), (each < 0).sum())
    assert found.difference == pytest.approx(right_a.mean() - right_b.mean())
    error = each.std() / math.sqrt(2000)
    assert (found.low, found.high) == pytest.approx(
        (found.difference - 1.96 * error, found.difference + 1.96 * error), abs=0.1 * error
    )
    assert found.p_value == mcnemar(found.only_a, found.only_b)


def test_the_other_way_round_and_the_same_twice() -> None:
    random = np.random.default_rng(1)
    right_a, right_b = random.random(300) < 0.8, random.random(300) < 0.7
    there, back, same = paired(right_a, right_b), paired(right_b, right_a), paired(right_a, right_a)
    assert (there.difference, there.only_a, there.p_value) == (-back.difference, back.only_b, back.p_value)
    assert there.difference > 0 and there.low < there.difference < there.high
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_chance_is_called_significant_no_more_often_than_said() -> None:
    random = np.random.default_rng(2)
    values = [paired(random.random(100) < 0.5, random.random(100) < 0.5, draws=1).p_value for _ in range(1000)]
    assert np.mean(np.array(values) < 0.05) < 0.05  # an exact test is on the safe side
    assert np.mean(np.array(values) < 0.5) > 0.35


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match=r"same pictures.* not \(2,\), \(3,\)"):
        paired(np.ones(2, bool), np.ones(3, bool))
    with pytest.raises(DataError, match=r"not \(0,\)"):
        paired(np.ones(0, bool), np.ones(0, bool))
    with pytest.raises(ConfigError, match="0 draws"):
        paired(np.ones(2, bool), np.ones(2, bool), 0)
