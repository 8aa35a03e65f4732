"""Thinning out labelled sets: how many pictures and classes are left, and which."""

import numpy as np
import pytest

from birder.data.thinning import OF_A_CLASS, evenly, thinned


def counted(counts: list[int], most: int) -> dict[int, int]:
    """Pictures that are left of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    kept = thinned(labels, most)
    assert len(kept) <= most and (np.diff(kept) > 0).all() and kept.dtype == np.int64
    classes, left = np.unique(labels[kept], return_counts=True)
    return dict(zip(classes.tolist(), left.tolist(), strict=True))


def test_small_sets_are_left_as_they_are() -> None:
    assert counted([1, 2, 3], 20) == {0: 1, 1: 2, 2: 3}
    assert counted([10, 10], 20) == {0: 10, 1: 10}
    assert thinned(np.zeros(0, np.int64), 20).tolist() == []


def test_of_many_small_classes_whole_ones_are_kept() -> None:
    left = counted([10] * 10_000, 5000)
    assert len(left) == 500 and set(left.values()) == {10}
    assert min(left) == 0 and max(left) == 9999 and set(np.diff(sorted(left))) <= {20, 21}


def test_of_large_classes_some_pictures_are_kept() -> None:
    assert counted([1000] * 50, 5000) == dict.fromkeys(range(50), 100)
    assert counted([100_000], 5000) == {0: 5000}
    left = counted([100] * 1000, 5000)
    assert len(left) == 250 and set(left.values()) == {OF_A_CLASS}
    left = counted([100_000] + [10] * 100, 5000)  # the others are whole
    assert left == {0: 5000 // 101} | dict.fromkeys(range(1, 101), 10)


@pytest.mark.parametrize("seed", range(5))
def test_classes_of_any_size(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = np.ceil(random.pareto(1.0, 3000) * 3 + 1).astype(np.int64).tolist()
    left = counted(counts, 1000)
    assert sum(left.values()) > 800
    assert all(number == min(counts[label], OF_A_CLASS) for label, number in left.items())


def test_the_order_and_the_numbers_of_the_classes_do_not_matter() -> None:
    labels = np.random.default_rng(0).integers(0, 30, 900) * 7 + 2
    kept = thinned(labels, 300)
    assert np.unique(labels[kept], return_counts=True)[1].tolist() == [OF_A_CLASS] * 15
    assert kept[:3].max() < 100 and kept[-3:].min() > 800


def test_evenly() -> None:
    assert evenly(16, 4).tolist() == [0, 5, 10, 15]
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(5, 1).tolist() == [0]
