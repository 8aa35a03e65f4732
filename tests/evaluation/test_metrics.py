"""Metrics, against numbers worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birder.errors import DataError
from birder.evaluation.metrics import (
    balanced_accuracy,
    costliest,
    cross_family_errors,
    macro_f1,
    most_confused,
    per_class,
    per_family,
    top_k_accuracy,
    wilson_interval,
)

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


def test_balanced_accuracy_is_of_the_classes_that_have_pictures() -> None:
    assert balanced_accuracy(LABELS, PREDICTED, 5) == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert math.isnan(balanced_accuracy(LABELS[:0], PREDICTED[:0], 5))


def test_the_interval_of_a_recall() -> None:
    rows = {row.name: row for row in per_class(LABELS, PREDICTED, NAMES)}
    assert (rows["Emu"].recall_low, rows["Emu"].recall_high) == pytest.approx(wilson_interval(1, 4))
    assert math.isnan(rows["Kea"].recall_low) and math.isnan(rows["Kea"].recall_high)


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


def test_the_costliest_mistakes() -> None:
    rows = costliest(LABELS, PREDICTED, NAMES)
    assert [(row.name, row.predicted, row.share) for row in rows] == [
        ("Emu", "Kea", 0.5),
        ("Wren", "Tit", 0.5),
        ("Tit", "Wren", 0.5),
        ("Emu", "Wren", 0.25),
    ]
    lacking = 1 - balanced_accuracy(LABELS, PREDICTED, 5)
    for row in rows:  # without the mistake, balanced accuracy would be higher by its share of one of three classes
        assert row.cost == pytest.approx(row.share / 3 / lacking)
    assert math.fsum(row.cost for row in rows) == pytest.approx(1)
    assert sorted(map(hash, rows)) == sorted(map(hash, most_confused(LABELS, PREDICTED, NAMES)))
    rare = costliest(np.array([0] * 20 + [1, 1]), np.array([1] * 3 + [0] * 17 + [1, 0]), ("Common", "Rare"))
    assert [(row.name, row.count) for row in rare] == [("Rare", 1), ("Common", 3)]


FAMILIES = {"Wren": "Small", "Tit": "Small", "Emu": "Large", "Owl": "Night", "Kea": "Large"}


def test_per_family() -> None:
    large, small = per_family(LABELS, PREDICTED, NAMES, FAMILIES)  # of owls nothing is known
    assert (large.name, large.samples, large.predicted, large.species) == ("Large", 4, 3, 2)
    assert (large.precision, large.recall, large.species_right) == (1.0, 0.75, 0.25)
    assert (large.recall_low, large.recall_high) == pytest.approx(wilson_interval(3, 4))
    assert (small.name, small.samples, small.predicted, small.species) == ("Small", 6, 7, 2)
    assert (small.precision, small.recall, small.species_right) == (6 / 7, 1.0, 0.5)
    (only,) = per_family(np.array([0]), np.array([1]), NAMES, FAMILIES)
    assert (only.recall, only.species_right) == (1.0, 0.0)
    given = {row.name: row for row in per_family(np.array([0]), np.array([3]), NAMES, FAMILIES)}
    assert math.isnan(given["Night"].recall) and math.isnan(given["Night"].species_right)


def test_mistakes_across_families() -> None:
    assert cross_family_errors(LABELS, PREDICTED, NAMES, FAMILIES) == pytest.approx(1 / 6)  # an emu taken for a wren
    assert cross_family_errors(np.array([0, 2]), np.array([3, 3]), NAMES, FAMILIES) == 1.0
    assert math.isnan(cross_family_errors(LABELS, LABELS, NAMES, FAMILIES))


def test_species_without_a_family() -> None:
    for figure in (per_family, cross_family_errors):
        with pytest.raises(DataError, match="no family is known of 1 of 5 species, such as Kea"):
            figure(LABELS, PREDICTED, NAMES, {name: "x" for name in NAMES if name != "Kea"})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_same_as_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    present = sorted(set(labels.tolist()))
    wanted = sklearn.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(labels, predicted, 5) == pytest.approx(wanted)
    assert balanced_accuracy(labels, predicted, 5) == pytest.approx(
        sklearn.recall_score(labels, predicted, labels=present, average="macro")
    )
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


@pytest.mark.parametrize("count", [1, 5, 500])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_ranks_are_those_of_scikit_learn(count: int, k: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(count)
    probabilities = random.dirichlet(np.ones(8), count)
    labels = random.integers(0, 8, count)
    ranked = np.argsort(-probabilities, axis=1)[:, :5]
    wanted = sklearn.top_k_accuracy_score(labels, probabilities, k=k, labels=range(8))
    assert top_k_accuracy(labels, ranked, k) == pytest.approx(wanted)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels = random.choice(50, 3000, p=random.dirichlet(np.ones(50)))
    predicted = np.where(random.random(3000) < 0.7, labels, random.choice(np.unique(labels), 3000))
    assert balanced_accuracy(labels, predicted, 50) == pytest.approx(sklearn.balanced_accuracy_score(labels, predicted))
