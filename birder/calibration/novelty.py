"""Fitting what tells pictures of other things than a model's classes, and measuring how well it does.

A raw score is fitted on pictures of the classes alone, cross-fitted: those of each fifth are scored by what was fitted
on the other four, as a picture lies nearer to the mean of its class when it is a part of it.

Shapes: N pictures of the classes, U of others, D size of the embedding, K classes, C of them with pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from birder.errors import need
from birder.evaluation.estimates import Estimate, Indices, bootstrap
from birder.inference.novelty import RAW, Doubles, in_float64
from birder.model_file import Novelty
from birder.model_file.calibration import KINDS, Array

Numbers: TypeAlias = np.ndarray[Any, Any]

FOLDS = 5

_LEVELS = 200  # quantiles of the known that are stored
_FLAT = 1e-6  # of the largest variance: directions with less are left out


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network answered to pictures."""

    embeddings: Numbers
    """(N, D)."""
    logits: Numbers
    """(N, K)."""
    labels: Numbers
    """What they show, (N,); of pictures of other things without meaning."""

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, which: Numbers) -> "Seen":
        """Some of the pictures, by their numbers or a mask."""
        return Seen(embeddings=self.embeddings[which], logits=self.logits[which], labels=self.labels[which])


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a raw score tells known pictures from others."""

    auroc: Estimate
    """The chance that a picture of something else scores higher than one of the classes, 0-1; 0.5 is guessing."""
    fpr95: Estimate
    """The share of the others that is taken for known, where 95 % of the known are."""
    better: Estimate
    """How much greater ``auroc`` is than that of max softmax."""
    fewer: Estimate
    """How much smaller ``fpr95`` is than that of max softmax."""


def fit_novelty(
    kind: str, pictures: Seen, *, training: Seen | None = None, kept: float = 0.95
) -> tuple[Novelty, Doubles]:
    """Fit one kind of score, and its threshold, on pictures of the classes.

    Args:
        kind: One of ``KINDS``.
        pictures: Held-out pictures of the classes.
        training: Pictures that the network was trained on, to take centroids and covariances from in place of
            ``pictures``; quantiles and threshold still come from those.
        kept: The share of the known pictures that the threshold leaves in the list.

    Returns:
        What is stored, and the raw scores of ``pictures``, (N,).
    """
    arrays = fit_arrays(kind, pictures if training is None else training)
    raw = cross_fitted(kind, pictures) if training is None else raw_scores(kind, arrays, pictures)
    levels = min(_LEVELS, len(raw))
    known = np.quantile(raw, np.arange(levels) / levels)
    return Novelty(kind=kind, threshold=kept, known=known.astype(np.float32), arrays=arrays, measured={}), raw


def fit_arrays(kind: str, pictures: Seen) -> dict[str, Array]:
    """What a raw score needs to know of the classes; see ``birder.inference.novelty`` for each."""
    if not KINDS[kind]:
        return {}
    embeddings = np.asarray(pictures.embeddings, np.float64)
    present, groups = np.unique(pictures.labels, return_inverse=True)
    means = np.zeros((len(present), embeddings.shape[1]))
    np.add.at(means, groups, embeddings)
    means /= np.bincount(groups)[:, None]
    if kind == "centroids":
        return {"centroids": (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)}
    centre = embeddings.mean(axis=0)
    whitening = _whitening(embeddings - means[groups])
    arrays = {"centre": centre, "whitening": whitening, "centroids": (means - centre) @ whitening}
    if kind == "relative_mahalanobis":
        arrays["background"] = _whitening((embeddings - centre) @ whitening)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def cross_fitted(kind: str, pictures: Seen, folds: int = FOLDS) -> Doubles:
    """Raw scores (N,) of pictures by what was fitted on the others."""
    if not KINDS[kind]:
        return raw_scores(kind, {}, pictures)
    part = folds_of(len(pictures), folds)
    raw = np.empty(len(pictures))
    for fold in range(folds):
        raw[part == fold] = raw_scores(kind, fit_arrays(kind, pictures.of(part != fold)), pictures.of(part == fold))
    return raw


def raw_scores(kind: str, arrays: Mapping[str, Array], pictures: Seen) -> Doubles:
    """Raw scores of pictures, (N,)."""
    ready = in_float64(arrays)
    pairs = zip(in_float64({"": pictures.embeddings})[""], in_float64({"": pictures.logits})[""], strict=True)
    return np.array([RAW[kind](ready, embedding, logits) for embedding, logits in pairs])


def folds_of(count: int, folds: int = FOLDS) -> Numbers:
    """The number of the fold of each picture, (N,), at random, the same each time."""
    return np.random.default_rng(0).permutation(count) % folds


def auroc(known: Numbers, others: Numbers) -> float:
    """The chance that one of the others (U,) scores higher than one of the known (N,); equal ones count half."""
    ordered = np.sort(known)
    below, not_above = np.searchsorted(ordered, others, "left"), np.searchsorted(ordered, others, "right")
    return float((below + not_above).mean() / (2 * len(known)))


def fpr95(known: Numbers, others: Numbers) -> float:
    """The share of the others (U,) that is taken for known, at the threshold that takes 95 % of the known (N,) so."""
    threshold = np.quantile(known, 0.95, method="higher")
    return float((others <= threshold).mean())


def separation(known: tuple[Numbers, Numbers], others: tuple[Numbers, Numbers], *, draws: int = 1000) -> Separation:
    """Compare a raw score with max softmax on the same pictures.

    Args:
        known: Raw scores of known pictures and their scores by max softmax, (N,) each.
        others: The same of pictures of other things, (U,) each.
        draws: How often the bootstrap draws from both.
    """
    count = len(known[0])

    def statistic(drawn: Indices) -> dict[str, float]:
        mine, theirs = drawn[drawn < count], drawn[drawn >= count] - count
        (one, two), (three, four) = (known[0][mine], known[1][mine]), (others[0][theirs], others[1][theirs])
        area, share = auroc(one, three), fpr95(one, three)
        return {"auroc": area, "fpr95": share, "better": area - auroc(two, four), "fewer": fpr95(two, four) - share}

    figures = bootstrap(statistic, count + len(others[0]), draws=draws, limits=(-1.0, 1.0))
    for name in ("auroc", "fpr95"):
        figures[name] = replace(figures[name], low=max(0.0, figures[name].low))
    return Separation(**figures)


def _whitening(residuals: Doubles) -> Doubles:
    """(N, D) -> (D, R): what makes the covariance of the residuals, which have the mean 0, the identity.

    Few pictures say little of the covariance of many numbers: it is shrunk towards a sphere, as far as is best in the
    mean (Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4).
    """
    sklearn = need("sklearn.covariance", extra="train", purpose="a score of novelty by covariance")
    covariance, _ = sklearn.ledoit_wolf(residuals, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > _FLAT * variances[-1]
    return directions[:, kept] / np.sqrt(variances[kept])
