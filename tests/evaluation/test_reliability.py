"""Calibration and coverage against scikit-learn, and against what is counted picture by picture."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError
from birder.evaluation.reliability import (
    accuracy_by_coverage,
    brier,
    expected_calibration_error,
    reliability,
    threshold_for,
)

# Few values, so that there are ties, and edges of bins among them.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 0.5, 0.6, 0.9, 0.99, 1.0]), st.booleans()), max_size=40
)
Answers = list[tuple[float, bool]]


def arrays(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in answers], np.float64), np.array([hit for _, hit in answers], bool)


def random_answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    confidence = random.random(count).astype(np.float32)
    return confidence, random.random(count) < confidence**2


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_the_bins_are_those_of_scikit_learn(count: int, bins: int) -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    confidence, right = random_answers(count)
    rows = reliability(confidence, right, bins)
    accuracy, mean = calibration.calibration_curve(right, confidence.astype(float), n_bins=bins, strategy="uniform")
    filled = [row for row in rows if row.pictures]
    assert len(rows) == bins and sum(row.pictures for row in rows) == count
    assert [row.accuracy for row in filled] == pytest.approx(accuracy.tolist(), abs=1e-12)
    assert [row.confidence for row in filled] == pytest.approx(mean.tolist(), abs=1e-12)
    assert (rows[0].low, rows[-1].high) == (0, 1)
    assert all(first.high == second.low for first, second in pairwise(rows))


@given(ANSWERS, st.integers(1, 20))
def test_calibration_counted_picture_by_picture(answers: Answers, bins: int) -> None:
    confidence, right = arrays(answers)
    rows = reliability(confidence, right, bins)
    error = 0.0
    for number, row in enumerate(rows):
        inside = [(value, hit) for value, hit in answers if row.low < value <= row.high or (number == 0 and value == 0)]
        assert row.pictures == len(inside)
        if not inside:
            assert math.isnan(row.confidence) and math.isnan(row.accuracy)
            continue
        mean = sum(value for value, _ in inside) / len(inside)
        accuracy = sum(hit for _, hit in inside) / len(inside)
        assert (row.confidence, row.accuracy) == pytest.approx((mean, accuracy), abs=1e-12)
        error += len(inside) / len(answers) * abs(mean - accuracy)
    found = expected_calibration_error(confidence, right, bins)
    assert found == pytest.approx(error, abs=1e-12) if answers else math.isnan(found)


@given(ANSWERS.filter(bool))
def test_brier_is_that_of_scikit_learn(answers: Answers) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    confidence, right = arrays(answers)
    assert brier(confidence, right) == pytest.approx(
        metrics.brier_score_loss(right, confidence, labels=[False, True]), abs=1e-12
    )


def test_a_calibrated_set_has_a_small_error_and_one_that_is_too_sure_a_large_one() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.2, 1, 200_000)
    right = random.random(200_000) < confidence
    assert expected_calibration_error(confidence, right) < 0.005
    assert expected_calibration_error(confidence, random.random(200_000) < confidence - 0.2) == pytest.approx(
        0.2, abs=0.005
    )
    assert brier(confidence, right) == pytest.approx((confidence * (1 - confidence)).mean(), abs=0.002)


@given(ANSWERS)
def test_coverage_counted_threshold_by_threshold(answers: Answers) -> None:
    curve = accuracy_by_coverage(*arrays(answers))
    assert curve.threshold.tolist() == sorted({value for value, _ in answers}, reverse=True)
    for threshold, coverage, accuracy in zip(curve.threshold, curve.coverage, curve.accuracy, strict=True):
        hits = [hit for value, hit in answers if value >= threshold]
        assert coverage == pytest.approx(len(hits) / len(answers), abs=1e-12)
        assert accuracy == pytest.approx(sum(hits) / len(hits), abs=1e-12)
    assert not answers or curve.coverage[-1] == 1


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    confidence, right = random_answers(5000)
    curve = accuracy_by_coverage(confidence, right)
    assert len(curve.threshold) == len(curve.coverage) == len(curve.accuracy) == 200
    assert curve.threshold[0] == confidence.max() and curve.threshold[-1] == confidence.min()
    assert curve.coverage[-1] == 1 and curve.accuracy[-1] == pytest.approx(right.mean())
    assert (np.diff(curve.threshold) < 0).all() and (np.diff(curve.coverage) > 0).all()
    for threshold, coverage in zip(curve.threshold, curve.coverage, strict=True):
        assert coverage == (confidence >= threshold).mean()


@given(ANSWERS, st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5, 1.0]))
def test_the_threshold_is_the_lowest_that_keeps_the_promise(answers: Answers, max_error: float) -> None:
    keeping = [
        threshold
        for threshold in {value for value, _ in answers}
        for hits in [[hit for value, hit in answers if value >= threshold]]
        if hits.count(False) / len(hits) <= max_error
    ]
    found = threshold_for(*arrays(answers), max_error=max_error)
    if found is None:
        assert not keeping
        return
    hits = [hit for value, hit in answers if value >= found.threshold]
    assert found.threshold == min(keeping)
    assert found.coverage == len(hits) / len(answers)
    assert found.error == hits.count(False) / len(hits) <= max_error
    assert found.interval[0] <= found.error <= found.interval[1]


def test_a_promise_that_is_kept_to_the_last_picture() -> None:
    right = np.arange(100) >= 29
    found = threshold_for(np.full(100, 0.7), right, max_error=0.29)  # in floats, 0.29 * 100 is less than 29
    assert found is not None and (found.threshold, found.coverage, found.error) == (0.7, 1.0, 0.29)
    assert found.interval == pytest.approx((0.2101, 0.3854), abs=1e-4)
    assert threshold_for(np.full(100, 0.7), right, max_error=0.28) is None
    assert threshold_for(np.full(3, 0.9), np.zeros(3, bool)) is None


def test_what_is_no_confidence() -> None:
    right = np.array([True, False])
    for confidence in ([0.5, math.nan], [0.5, 1.1], [-0.1, 0.5]):
        with pytest.raises(DataError, match="must be a probability"):
            reliability(np.array(confidence), right)
    with pytest.raises(DataError, match=r"\(N,\) both, not \(3,\) and \(2,\)"):
        brier(np.zeros(3), right)
    with pytest.raises(ConfigError, match="one bin at least, not 0"):
        expected_calibration_error(np.zeros(2), right, bins=0)
    with pytest.raises(ConfigError, match=r"0 to 1, not 1\.5"):
        threshold_for(np.zeros(2), right, max_error=1.5)


def test_a_softmax_may_round_above_one() -> None:
    (*_, last) = reliability(np.array([1.0000001], np.float32), np.array([True]))
    assert (last.pictures, last.accuracy) == (1, 1)
