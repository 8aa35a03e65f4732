"""Prediction sets keep their promise: the coverage is that which the theory gives, in the mean and in its spread."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError
from birder.evaluation.conformal import (
    Method,
    class_scores,
    conformal_threshold,
    label_scores,
    prediction_sets,
    resplits,
)


def pictures(count: int, classes: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure, and labels drawn from better ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    shown = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    return shown.astype(np.float32), labels


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0, math.nan]), max_size=40), st.integers(1, 99))
def test_the_threshold_is_the_finite_sample_quantile(scores: list[float], percent: int) -> None:
    ordered = sorted(math.inf if math.isnan(score) else score for score in scores)
    place = -(-(len(scores) + 1) * percent // 100)  # rounded up, in whole numbers
    wanted = ordered[place - 1] if place <= len(scores) else math.inf
    assert conformal_threshold(np.array(scores, float), percent / 100) == wanted


def test_as_many_pictures_as_a_promise_needs() -> None:
    assert conformal_threshold(np.zeros(9), 0.9) == 0  # 0.9 * 10 is a whole number, and may not be rounded up
    assert conformal_threshold(np.zeros(8), 0.9) == math.inf
    assert conformal_threshold(np.zeros(0), 0.5) == math.inf


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_over_a_thousand_resplits(coverage: float) -> None:
    """With random splits, coverage has a beta-binomial distribution, whatever the network is worth."""
    stats = pytest.importorskip("scipy.stats")
    probabilities, labels = pictures(601)
    found = resplits(label_scores(probabilities, labels), class_scores(probabilities), coverage)
    place = math.ceil(301 * coverage)
    law = stats.betabinom(301, place, 301 - place)  # 300 pictures give the threshold, 301 are asked
    assert found.coverage == pytest.approx(place / 301, abs=4 * law.std() / 301 / math.sqrt(1000))
    assert found.low == pytest.approx(law.ppf(0.05) / 301, abs=0.006)
    assert found.high == pytest.approx(law.ppf(0.95) / 301, abs=0.006)
    assert 1 < found.size < 8


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_coverage_of_pictures_that_were_never_seen(method: Method) -> None:
    """Over 500 sets of 99 pictures, each asked about 101 others; 90 of 100 is what the theory gives."""
    probabilities, labels = pictures(100_000, seed=1)
    scores = label_scores(probabilities, labels, method).reshape(500, 200)
    covered = [(row[99:] <= conformal_threshold(row[:99], 0.9)).mean() for row in scores]
    assert np.mean(covered) == pytest.approx(0.9, abs=3 * np.std(covered) / math.sqrt(500))


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_the_label_is_in_the_set_when_its_score_says_so(method: Method) -> None:
    probabilities, labels = pictures(500)
    scores = label_scores(probabilities, labels, method)
    for coverage in (0.5, 0.9, 0.99):
        threshold = conformal_threshold(scores, coverage)
        sets = prediction_sets(probabilities, threshold, method)
        assert sets.shape == probabilities.shape and sets.dtype == bool
        assert np.array_equal(sets[np.arange(500), labels], scores <= threshold)
        assert sets[np.arange(500), labels].mean() >= coverage
    assert prediction_sets(probabilities, math.inf, method).all()


def test_larger_promises_have_larger_sets_and_lac_has_the_smaller_ones() -> None:
    probabilities, labels = pictures(2000)
    sizes = {
        method: [
            prediction_sets(probabilities, conformal_threshold(label_scores(probabilities, labels, method), c), method)
            .sum(axis=1)
            .mean()
            for c in (0.6, 0.8, 0.9, 0.95)
        ]
        for method in ("lac", "aps")
    }
    assert sorted(sizes["lac"]) == sizes["lac"] and sorted(sizes["aps"]) == sizes["aps"]
    assert all(small < large for small, large in zip(sizes["lac"], sizes["aps"], strict=True))


@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_aps_sums_all_that_is_as_probable_or_more(rows: list[list[float]]) -> None:
    found = class_scores(np.array(rows), "aps")
    for row, scores in zip(rows, found, strict=True):
        for label, value in enumerate(row):
            above = [p for other, p in enumerate(row) if p > value or (p == value and other <= label)]
            assert scores[label] == pytest.approx(sum(above), abs=1e-12)
        assert scores[np.argmax(row)] == min(scores)


def test_lac_knows_all_from_the_probability_of_the_label() -> None:
    probabilities, labels = pictures(50)
    assert np.array_equal(label_scores(probabilities, labels), class_scores(probabilities[np.arange(50), labels]))


def test_labels_that_are_not_known_count_as_the_strangest() -> None:
    assert conformal_threshold(np.array([math.nan, 0.1, 0.2, 0.3]), 0.5) == 0.3
    assert conformal_threshold(np.array([math.nan, 0.1, 0.2, 0.3]), 0.8) == math.inf


def test_what_makes_no_sense() -> None:
    for coverage in (0, 1, 1.2):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            conformal_threshold(np.zeros(3), coverage)
    with pytest.raises(DataError, match=r"must be \(N,\), not \(2, 3\)"):
        conformal_threshold(np.zeros((2, 3)), 0.9)
    with pytest.raises(ConfigError, match="'raps' is none of lac, aps"):
        class_scores(np.zeros((2, 3)), "raps")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot halve 1 pictures"):
        resplits(np.zeros(1), np.zeros((1, 3)), 0.9)
    with pytest.raises(DataError, match="of which 3 have scores"):
        resplits(np.zeros(4), np.zeros((3, 3)), 0.9)
    with pytest.raises(ConfigError, match="one split is needed, not 0"):
        resplits(np.zeros(4), np.zeros((4, 3)), 0.9, draws=0)
