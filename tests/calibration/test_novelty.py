"""Fitting and measuring what tells other things: against scikit-learn, and on clouds of points that are known."""

import numpy as np
import pytest

from birder.calibration.novelty import (
    Seen,
    auroc,
    cross_fitted,
    fit_arrays,
    fit_novelty,
    fpr95,
    raw_scores,
    separation,
)
from birder.inference.novelty import NoveltyScore
from birder.model_file.calibration import KINDS


def clouds(count: int, *, seed: int = 0, classes: int = 10, size: int = 20, new: bool = False) -> Seen:
    """Points around the centre of each class; of new ones, around other centres."""
    centres = np.random.default_rng(99 if new else 98).normal(size=(classes, size)) * 2
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    embeddings = (centres[labels] + random.normal(size=(count, size))).astype(np.float32)
    weights = np.random.default_rng(98).normal(size=(classes, size)) * 2
    return Seen(embeddings=embeddings, logits=(embeddings @ weights.T / 8).astype(np.float32), labels=labels)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("known", "others"), [(1, 1), (1, 50), (200, 3), (300, 400)])
def test_auroc_is_that_of_scikit_learn(known: int, others: int, ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(known)
    one, two = random.normal(size=known), random.normal(0.7, 2, others)
    if ties:
        one, two = one.round(), two.round()
    truth = np.repeat([0, 1], [known, others])
    assert auroc(one, two) == pytest.approx(metrics.roc_auc_score(truth, np.concatenate([one, two])), abs=1e-12)


def test_auroc_of_what_is_told_apart_or_not_at_all() -> None:
    assert auroc(np.zeros(5), np.ones(3)) == 1
    assert auroc(np.ones(5), np.zeros(3)) == 0
    assert auroc(np.ones(5), np.ones(3)) == 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_fpr95_by_going_through_all_thresholds(ties: bool) -> None:
    random = np.random.default_rng(0)
    known, others = random.normal(size=237), random.normal(1.5, 1, 300)
    if ties:
        known, others = known.round(1), others.round(1)
    shares = [(others <= at).mean() for at in sorted(known) if (known <= at).mean() >= 0.95]
    assert fpr95(known, others) == pytest.approx(shares[0])
    assert fpr95(np.zeros(9), np.ones(9)) == 0 and fpr95(np.ones(9), np.zeros(9)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_threshold_lets_the_stated_share_of_new_known_pictures_pass(kind: str) -> None:
    """The quantiles are cross-fitted: taken from the pictures of the fit they would promise too much."""
    score = NoveltyScore(fit_novelty(kind, clouds(1000), kept=0.9)[0])
    fresh = clouds(4000, seed=1)
    values = np.array([score(*pair) for pair in zip(fresh.embeddings, fresh.logits, strict=True)])
    assert score.threshold == 0.9
    assert (values <= 0.9).mean() == pytest.approx(0.9, abs=0.03)
    assert values.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", ["centroids", "mahalanobis", "relative_mahalanobis"])
def test_a_picture_is_scored_by_what_others_taught(kind: str) -> None:
    pictures = clouds(100)
    inside = raw_scores(kind, fit_arrays(kind, pictures), pictures)
    assert cross_fitted(kind, pictures).mean() > inside.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_other_things_are_told(kind: str) -> None:
    novelty, raw = fit_novelty(kind, clouds(400))
    others = raw_scores(kind, novelty.arrays, clouds(300, new=True))
    assert auroc(raw, others) > (0.6 if not KINDS[kind] else 0.9)


def test_centroids_of_training_pictures() -> None:
    training, pictures = clouds(1000, seed=3), clouds(200)
    novelty, raw = fit_novelty("mahalanobis", pictures, training=training)
    arrays = fit_arrays("mahalanobis", training)
    np.testing.assert_array_equal(novelty.arrays["centroids"], arrays["centroids"])
    np.testing.assert_array_equal(raw, raw_scores("mahalanobis", arrays, pictures))


def test_classes_without_pictures_have_no_centroid() -> None:
    pictures = clouds(300)
    some = pictures.of(pictures.labels % 3 == 0)
    assert fit_arrays("centroids", some)["centroids"].shape == (4, 20)
    assert fit_arrays("relative_mahalanobis", some)["centroids"].shape[0] == 4


def test_more_numbers_than_pictures() -> None:
    few = clouds(30, size=200)
    for kind in ("mahalanobis", "relative_mahalanobis"):
        arrays = fit_arrays(kind, few)
        assert all(np.isfinite(array).all() for array in arrays.values())
        assert np.isfinite(raw_scores(kind, arrays, clouds(10, size=200, new=True))).all()


def test_separation_is_of_the_same_pictures() -> None:
    random = np.random.default_rng(0)
    known, others = random.normal(size=400), random.normal(2, 1, size=300)
    blurred = known + random.normal(size=400) * 3, others + random.normal(size=300) * 3
    found = separation((known, blurred[0]), (others, blurred[1]), draws=200)
    assert found.auroc.value == auroc(known, others) and found.fpr95.value == fpr95(known, others)
    assert found.better.value == pytest.approx(auroc(known, others) - auroc(*blurred))
    assert found.fewer.value == pytest.approx(fpr95(*blurred) - fpr95(known, others))
    assert found.better.low > 0.1 and found.auroc.low < found.auroc.value < found.auroc.high
    same = separation((known, known), (others, others), draws=50)
    assert same.better.low == same.better.high == 0
    worse = separation((blurred[0], known), (blurred[1], others), draws=200)
    assert worse.better.value == -found.better.value and worse.better.low < worse.better.value < worse.better.high < 0
