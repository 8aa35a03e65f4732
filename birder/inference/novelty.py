"""How new a picture is to a network: does it show any of the classes at all?

Each kind of raw score is a function of one picture's embedding and logits, and rises with novelty. Everything is
computed in float64, one picture at a time and without products of matrices, whose last bits depend on how much is
multiplied at once: so no answer depends on what else is in a batch, nor on the number of threads.

Shapes: D size of the embedding, K classes of the model, C classes with a centroid, R directions, Q quantiles.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from birder.model_file import Novelty

Numbers: TypeAlias = np.ndarray[Any, Any]
Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Arrays: TypeAlias = Mapping[str, Doubles]


class NoveltyScore:
    """The novelty of pictures, 0-1: the share of known pictures that look less new."""

    def __init__(self, novelty: Novelty) -> None:
        """Make ready what a model file has."""
        self.threshold = novelty.threshold
        self._raw = RAW[novelty.kind]
        self._arrays = in_float64(novelty.arrays)
        self._known = novelty.known.astype(np.float64)

    def __call__(self, embedding: Numbers, logits: Numbers) -> float:
        """Novelty of one picture, of its embedding (D,) and logits (K,); NaN if these are no numbers."""
        raw = self._raw(self._arrays, np.asarray(embedding, np.float64), np.asarray(logits, np.float64))
        return share_below(raw, self._known)


def in_float64(arrays: Mapping[str, Numbers]) -> dict[str, Doubles]:
    """Arrays as the raw scores take them."""
    return {name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}


def share_below(raw: float, known: Doubles) -> float:
    """The share of known pictures below a raw score, by their quantiles (Q,) at 0, 1 / Q, …, (Q - 1) / Q.

    Beyond the last of these it rises towards 1 as if the scores had an exponential tail, so that also what is newer
    than everything known has an order.
    """
    last = 1 - 1 / len(known)
    if raw <= known[-1]:
        return float(np.interp(raw, known, np.arange(len(known)) / len(known)))
    spread = float(known[-1] - known[len(known) // 2]) / math.log(0.5 / (1 - last))
    return 1 - (1 - last) * math.exp(-(raw - float(known[-1])) / max(spread, 1e-12))


def max_softmax(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """How improbable the most probable class is: the plain score that others are compared with.

    Paper: Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136
    """
    return -1 / float(np.exp(logits - logits.max()).sum())


def max_logit(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """How low the highest logit is.

    Paper: Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132
    """
    return -float(logits.max())


def entropy(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """How evenly the probability is spread over the classes: the entropy, in nats.

    Paper: Shannon 1948; as a score of novelty, Macedo et al. 2022, https://arxiv.org/abs/1908.05569
    """
    shifted = logits - logits.max()
    weights = np.exp(shifted)
    total = float(weights.sum())
    return math.log(total) - float(np.einsum("k,k->", weights, shifted)) / total


def energy(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """How little all logits together speak for any class.

    Paper: Liu et al. 2020, https://arxiv.org/abs/2010.03759
    """
    top = float(logits.max())
    return -top - math.log(float(np.exp(logits - top).sum()))


def centroids(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """Angle to the nearest class: 1 - the cosine between the embedding and a centroid, (C, D) of length 1."""
    length = math.sqrt(float(np.einsum("d,d->", embedding, embedding)))
    return 1 - float(np.einsum("cd,d->c", arrays["centroids"], embedding).max()) / max(length, 1e-30)


def mahalanobis(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """Squared distance to the nearest class, where all classes have the same covariance.

    ``whitening`` (D, R) makes that covariance the identity; ``centroids`` (C, R) are whitened already.

    Paper: Lee et al. 2018, https://arxiv.org/abs/1807.03888
    """
    return _nearest(arrays, _whitened(arrays, embedding))


def relative_mahalanobis(arrays: Arrays, embedding: Doubles, logits: Doubles) -> float:
    """The same, less the squared distance to all pictures as if they were one class.

    ``background`` (R, R) makes their covariance the identity, of embeddings that are whitened already.

    Paper: Ren et al. 2021, https://arxiv.org/abs/2106.09022
    """
    place = _whitened(arrays, embedding)
    background = np.einsum("r,rs->s", place, arrays["background"])
    return _nearest(arrays, place) - float(np.einsum("s,s->", background, background))


def _whitened(arrays: Arrays, embedding: Doubles) -> Doubles:
    return np.einsum("d,dr->r", embedding - arrays["centre"], arrays["whitening"])


def _nearest(arrays: Arrays, place: Doubles) -> float:
    apart = arrays["centroids"] - place
    return float(np.einsum("cr,cr->c", apart, apart).min())


Raw: TypeAlias = Callable[[Arrays, Doubles, Doubles], float]

RAW: dict[str, Raw] = {
    "max_softmax": max_softmax,
    "max_logit": max_logit,
    "entropy": entropy,
    "energy": energy,
    "centroids": centroids,
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
}
"""What computes each of ``birder.model_file.calibration.KINDS``."""
