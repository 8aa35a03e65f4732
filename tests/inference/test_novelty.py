"""Scores of novelty against plain references, and their independence of everything but the picture."""

import numpy as np
import pytest
import torch

from birder.calibration.novelty import Seen, fit_arrays, fit_novelty
from birder.inference.novelty import RAW, NoveltyScore, in_float64, share_below
from birder.model_file.calibration import KINDS


@pytest.fixture
def seen() -> Seen:
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, 300)
    centres, mixing = random.normal(size=(6, 12)) * 3, random.normal(size=(12, 12))
    embeddings = (centres[labels] + random.normal(size=(300, 12)) @ mixing).astype(np.float32)
    logits = (embeddings @ random.normal(size=(12, 8))).astype(np.float32)
    return Seen(embeddings=embeddings, logits=logits, labels=labels)


def raw(kind: str, seen: Seen, arrays: dict[str, np.ndarray] | None = None) -> np.ndarray:
    arrays = in_float64(fit_arrays(kind, seen) if arrays is None else arrays)
    pairs = zip(seen.embeddings.astype(np.float64), seen.logits.astype(np.float64), strict=True)
    return np.array([RAW[kind](arrays, embedding, logits) for embedding, logits in pairs])


def test_every_kind_is_there() -> None:
    assert RAW.keys() == KINDS.keys()


def test_scores_of_logits_are_those_of_torch(seen: Seen) -> None:
    logits = torch.from_numpy(seen.logits).double()
    np.testing.assert_allclose(raw("max_softmax", seen), -logits.softmax(1).amax(1), rtol=1e-12)
    np.testing.assert_array_equal(raw("max_logit", seen), -logits.amax(1))
    np.testing.assert_allclose(raw("energy", seen), -logits.logsumexp(1), rtol=1e-12)
    entropies = torch.special.entr(logits.softmax(1)).sum(1)
    np.testing.assert_allclose(raw("entropy", seen), entropies, rtol=1e-12, atol=1e-14)  # of those that are sure


def test_the_angle_to_the_nearest_centroid(seen: Seen) -> None:
    means = np.stack([seen.embeddings[seen.labels == label].astype(np.float64).mean(0) for label in range(6)])
    cosines = torch.cosine_similarity(
        torch.from_numpy(seen.embeddings).double()[:, None], torch.from_numpy(means)[None], dim=2
    )
    np.testing.assert_allclose(raw("centroids", seen), 1 - cosines.amax(1), atol=1e-6)  # stored as float32


@pytest.mark.parametrize("relative", [False, True])
def test_mahalanobis_by_the_inverse_of_the_covariance(seen: Seen, relative: bool) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    embeddings = seen.embeddings.astype(np.float64)
    means = np.stack([embeddings[seen.labels == label].mean(0) for label in range(6)])
    within, _ = covariance.ledoit_wolf(embeddings - means[seen.labels], assume_centered=True)
    apart = embeddings[:, None] - means[None]
    expected = np.einsum("ncd,de,nce->nc", apart, np.linalg.inv(within), apart).min(axis=1)
    if relative:
        whole = embeddings - embeddings.mean(0)
        values, vectors = np.linalg.eigh(within)
        white = whole @ vectors / np.sqrt(values)
        overall, _ = covariance.ledoit_wolf(white, assume_centered=True)
        expected -= np.einsum("nd,de,ne->n", white, np.linalg.inv(overall), white)
    found = raw("relative_mahalanobis" if relative else "mahalanobis", seen)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)  # float32 keeps seven digits of the arrays


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_far_away_is_newer(seen: Seen, kind: str) -> None:
    arrays = fit_arrays(kind, seen)
    random = np.random.default_rng(1)
    strange = Seen(
        embeddings=(random.normal(size=(100, 12)) * 9 - seen.embeddings.mean(0)).astype("f4"),
        logits=random.normal(size=(100, 8)).astype("f4"),
        labels=np.zeros(100, int),
    )
    assert np.median(raw(kind, strange, arrays)) > np.median(raw(kind, seen, arrays))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_wherever_the_numbers_lie(seen: Seen, kind: str) -> None:
    """In a row of their own, in a column of something larger, at an odd address, in another type of the same value."""
    score = NoveltyScore(fit_novelty(kind, seen)[0])
    for index in range(20):
        embedding, logits = seen.embeddings[index], seen.logits[index]
        expected = score(embedding, logits)
        odd = np.ndarray(12, "f4", bytearray(4 * 12 + 1), 1)
        odd[:] = embedding
        column = np.zeros((12, 7), np.float32)
        column[:, 3] = embedding
        assert score(odd, logits) == expected
        assert score(column[:, 3], np.repeat(logits, 2)[::2]) == expected
        assert score(embedding.astype(np.float64), logits.astype(np.float64)) == expected


def test_the_share_of_known_pictures_that_look_less_new() -> None:
    known = np.sort(np.random.default_rng(0).normal(size=200))
    for level in (0, 17, 100, 199):
        assert share_below(known[level], known) == level / 200
    assert share_below(known[0] - 1, known) == 0
    beyond = [share_below(known[-1] + more, known) for more in (0, 0.1, 1, 3, 5)]
    assert beyond == sorted(set(beyond)) and beyond[0] == 0.995 and beyond[-1] < 1
    assert np.isnan(share_below(float("nan"), known))
    assert share_below(1e300, known) == 1
    assert share_below(2, np.ones(200)) == 1 and share_below(0, np.ones(200)) == 0


def test_the_tail_is_that_of_an_exponential_distribution() -> None:
    levels = np.arange(200) / 200
    known = -np.log(1 - levels)
    for raw_score in (6.0, 8.0, 12.0):
        expected = 1 - np.exp(-raw_score)
        assert 1 - share_below(raw_score, known) == pytest.approx(1 - expected, rel=1e-9)


def test_numbers_that_are_none(seen: Seen) -> None:
    for kind in KINDS:
        score = NoveltyScore(fit_novelty(kind, seen)[0])
        nothing = np.full(12, np.nan, np.float32), np.full(8, np.nan, np.float32)
        assert np.isnan(score(*nothing))
        assert 0 <= score(np.zeros(12, np.float32), np.zeros(8, np.float32)) <= 1
