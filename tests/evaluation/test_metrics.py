"""Metrics, against numbers worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birder.evaluation.metrics import macro_f1, most_confused, per_class, top_k_accuracy, wilson_interval

NAMES = ("Wren", "Tit", "Emu", "Owl", "Kea")
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0])
PREDICTED = np.array([0, 0, 1, 1, 0, 2, 4, 4, 0, 1])


def test_top_k_accuracy() -> None:
    ranked = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]])
    labels = np.array([0, 0, 0, 3])
    assert [top_k_accuracy(labels, ranked, k) for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert top_k_accuracy(labels[:3], ranked[:3], 5) == 1
    assert math.isnan(top_k_accuracy(labels[:0], ranked[:0], 1))


@pytest.mark.parametrize(
    ("right", "total", "interval"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 20, (0.0, 0.1611252)),
        (20, 20, (0.8388748, 1.0)),
        (500, 1000, (0.4690695, 0.5309305)),
    ],
)
def test_wilson_interval(right: int, total: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(right, total) == pytest.approx(interval, abs=1e-6)


def test_wilson_interval_of_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_per_class() -> None:
    rows = {row.name: row for row in per_class(LABELS, PREDICTED, NAMES)}
    assert list(rows) == ["Wren", "Tit", "Emu", "Kea"]  # of Owl nothing is known
    assert (rows["Wren"].precision, rows["Wren"].recall, rows["Wren"].f1) == (0.5, 0.5, 0.5)
    assert (rows["Tit"].precision, rows["Tit"].recall, rows["Tit"].f1) == (1 / 3, 0.5, 0.4)
    assert (rows["Emu"].precision, rows["Emu"].recall, rows["Emu"].f1) == (1.0, 0.25, 0.4)
    kea = rows["Kea"]
    assert kea.precision == kea.f1 == 0 and math.isnan(kea.recall)
    assert [(row.samples, row.predicted) for row in rows.values()] == [(4, 4), (2, 3), (4, 1), (0, 2)]


def test_macro_f1_is_of_the_classes_that_have_pictures() -> None:
    assert macro_f1(LABELS, PREDICTED, 5) == pytest.approx((0.5 + 0.4 + 0.4) / 3)
    assert math.isnan(macro_f1(LABELS[:0], PREDICTED[:0], 5))


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    (row, _) = per_class(np.array([0, 0]), np.array([1, 1]), NAMES)
    assert math.isnan(row.precision) and row.recall == row.f1 == 0


def test_most_confused() -> None:
    rows = most_confused(LABELS, PREDICTED, NAMES)
    assert [(row.name, row.predicted, row.count, row.share) for row in rows] == [
        ("Emu", "Kea", 2, 0.5),
        ("Wren", "Tit", 2, 0.5),
        ("Tit", "Wren", 1, 0.5),
        ("Emu", "Wren", 1, 0.25),
    ]
    assert most_confused(LABELS, PREDICTED, NAMES, most=1) == rows[:1]
    assert most_confused(LABELS, LABELS, NAMES) == []


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_same_as_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    present = sorted(set(labels.tolist()))
    wanted = sklearn.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(labels, predicted, 5) == pytest.approx(wanted)
    assert top_k_accuracy(labels, predicted[:, None], 1) == pytest.approx(sklearn.accuracy_score(labels, predicted))
    precision, recall, f1, samples = sklearn.precision_recall_fscore_support(
        labels, predicted, labels=range(5), zero_division=0
    )
    for row in per_class(labels, predicted, NAMES):
        label = NAMES.index(row.name)
        assert (np.nan_to_num(row.precision), np.nan_to_num(row.recall), row.f1, row.samples) == pytest.approx(
            (precision[label], recall[label], f1[label], samples[label])
        )
    counted = sum(row.count for row in most_confused(labels, predicted, NAMES))
    assert counted == int((labels != predicted).sum())
