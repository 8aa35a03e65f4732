"""From a network's numbers to rows: which classes, how probable, and whether that is sure enough.

Shapes: V views of each picture, B pictures, K classes, D size of the embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from birder.errors import ConfigError
from birder.inference.checklist import Checklist, log_softmax
from birder.inference.novelty import NoveltyScore
from birder.inference.results.layout import Layout
from birder.inference.rows import NOT_FINITE, Floats, Row, Status

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]

_FEW = 64  # so many maxima are found sooner one after the other than by sorting


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Fills in rows of pictures that could be read."""

    names: Sequence[str]
    """Class names, (K,)."""
    top: int | None = 5
    """Classes for each picture, as many as there are if that is fewer; None is all."""
    min_score: float = 0.0
    """A picture whose best score is lower has the status ``unsure``."""
    checklist: Checklist | None = None
    """Only its classes are named; scores are probabilities among these."""
    temperature: float = 1.0
    """Logits are divided by it; see ``birder.model_file.Calibration``."""
    novelty: NoveltyScore | None = None
    """What tells pictures of none of the model's classes, on the checklist or not; None does not look."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ConfigError: A top below 1, or a score that is no probability.
        """
        if self.top is not None and self.top < 1:
            raise ConfigError(f"top must be 1 or more, not {self.top}")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score must be between 0 and 1, not {self.min_score}")

    @property
    def layout(self) -> Layout:
        """What a table of these answers needs room for."""
        listed = len(self.names) if self.checklist is None else len(self.checklist.labels)
        return Layout(
            top=listed if self.top is None else min(self.top, listed),
            open_scores=self.checklist is not None,
            novelty=self.novelty is not None,
        )

    def __call__(self, rows: Sequence[Row], logits: Floats, embeddings: Floats | None = None) -> list[Row]:
        """Rows with labels and scores, or with the error that the network's answer is no number.

        Args:
            rows: The pictures, (B,): what is known of them without the network stays.
            logits: (B, K); or of several views of each picture, (V, B, K), whose probabilities are averaged.
            embeddings: (B, D) or (V, B, D), which novelty is computed from; its mean over the views is taken.
        """
        logits = logits if logits.ndim == 3 else logits[None]
        finite = np.asarray(np.isfinite(logits).all(axis=(0, 2)))
        with np.errstate(invalid="ignore", over="ignore"):  # of the rows that are not finite
            everything = log_softmax(logits / np.float64(self.temperature))
            everything = np.logaddexp.reduce(everything, axis=0) - np.log(len(everything))
            listed = everything if self.checklist is None else log_softmax(everything[:, self.checklist.labels])
            novelty = self._novelty(embeddings, logits)
        finite &= np.isfinite(novelty)
        order = highest(listed, self.layout.top)
        labels = order if self.checklist is None else np.array(self.checklist.labels)[order]
        # In float32, which every format and the journal keep to the last bit.
        scores = np.exp(np.take_along_axis(listed, order, axis=1)).astype(np.float32).tolist()
        open_scores = np.exp(np.take_along_axis(everything, labels, axis=1)).astype(np.float32).tolist()
        return [
            replace(
                row,
                status=self._status(scores[index][0], novelty[index]),
                labels=tuple(self.names[label] for label in labels[index].tolist()),
                scores=tuple(scores[index]),
                open_scores=() if self.checklist is None else tuple(open_scores[index]),
                novelty=None if self.novelty is None else novelty[index],
            )
            if finite[index]
            else replace(row, status="error", reason=NOT_FINITE)
            for index, row in enumerate(rows)
        ]

    def _status(self, score: float, novelty: float) -> Status:
        if self.novelty is not None and novelty > self.novelty.threshold:
            return "not_in_list"
        return "unsure" if score < self.min_score else "ok"

    def _novelty(self, embeddings: Floats | None, logits: Floats) -> list[float]:
        """The means over the views, (B,), in float32 like scores; zeros if nothing tells."""
        if self.novelty is None:
            return [0.0] * logits.shape[1]
        assert embeddings is not None, "novelty is computed from them"
        views = len(logits)
        pictures = range(logits.shape[1])
        embeddings = embeddings.reshape(views, len(pictures), -1)
        sums = [sum(map(self.novelty, embeddings[:, index], logits[:, index])) for index in pictures]
        return [float(np.float32(total / views)) for total in sums]


def embedded(rows: Sequence[Row], embeddings: Floats) -> list[Row]:
    """Rows with embeddings (B, D) alone, or with the error that they are no numbers."""
    kept = np.array(embeddings, np.float32)  # whoever computed them may use the place for the next batch
    finite = np.asarray(np.isfinite(kept).all(axis=1))
    return [
        replace(row, embedding=numbers) if sound else replace(row, status="error", reason=NOT_FINITE)
        for row, numbers, sound in zip(rows, kept, finite, strict=True)
    ]


def highest(values: np.ndarray[Any, Any], count: int) -> Labels:
    """Places of the highest values of each row, (B, K) -> (B, count), highest first; of equal ones the lower first.

    NaN is no value: the order of a row that has one means nothing.
    """
    if count > _FEW:
        return np.argsort(-values, axis=1, kind="stable")[:, :count]
    left = np.array(values)
    order = np.empty((len(values), count), np.intp)
    for rank in range(count):
        order[:, rank] = left.argmax(axis=1)
        np.put_along_axis(left, order[:, rank : rank + 1], -np.inf, axis=1)
    return order
