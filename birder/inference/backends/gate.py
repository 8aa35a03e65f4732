"""Whether a fast way to compute gives the answers of the network: a comparison on drawn birds.

The reference is torch with 32-bit numbers, one operation after the other. What is compared are probabilities, because
they are what is asked for, and embeddings and logits, because a network that is sure of nothing, or has no classifier,
is judged too. Shapes: N pictures, C channels, H height, W width, D size of the embedding, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from birder.data.drawn import DrawnBirds
from birder.data.fitting import Fit, Pixels
from birder.inference.backends.base import Backend, Outputs
from birder.inference.rows import Floats

Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_SPECIES = 12
_FLAT = 0.2  # answers that differ less than this, relative to their length, are measured by their length


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far answers may be from the reference."""

    probability: float
    """Largest difference of a probability; also the lead of the best class up to which another one may be the best."""
    error: float
    """Largest difference of embeddings and of logits, in units of how much these differ between pictures."""
    correlation: float
    """Least correlation of embeddings."""


BOUNDS = {
    "fp32": Bounds(probability=1e-4, error=1e-3, correlation=0.99),
    "bf16": Bounds(probability=0.05, error=0.08, correlation=0.9),
    "int8": Bounds(probability=0.5, error=0.75, correlation=0.5),
}
"""By precision. Those of int8 only refuse what is broken: how good it is, is for the user to judge by its agreement."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near answers are to the reference."""

    pictures: int
    """N, of the comparison."""
    whole: bool
    """Whether there was one answer of the right length for each picture; without, the other fields say the worst."""
    finite: bool
    """Whether all answers were numbers."""
    same: float
    """Share of the pictures with the same best class, 0-1; 1 without classes."""
    lead: float
    """Largest lead of the best class over the second, in probability, where another class came out as the best."""
    probability: float
    """Largest difference of a probability; 0 without classes."""
    error: float
    """Length of the difference of two embeddings, worst picture, relative to how much embeddings differ."""
    logit_error: float
    """The same of logits; 0 without classes."""
    correlation: float
    """Of embeddings less their mean, all pictures together: 1 if they tell pictures apart in the same way, 0 if not."""

    def __str__(self) -> str:
        """Such as ``same best class on 13 of 13 drawn birds, probabilities within 0.004``."""
        same = f"same best class on {round(self.same * self.pictures)} of {self.pictures} drawn birds"
        return f"{same}, probabilities within {self.probability:.1g}, embeddings within {self.error:.1g}"


def golden_pictures(size: tuple[int, int], count: int) -> Pixels:
    """Drawn birds of twelve species, then the same mirrored and cut in ever other ways: uint8 (count, H, W, 3).

    The first pictures are the same for every ``count``. The twelve take less than half a second at 384 x 384, and are
    kept.

    Args:
        size: (height, width) that the network takes.
        count: N.
    """
    fit = Fit(size)
    return np.stack([fit(_variation(index, size)) for index in range(count)])


def _variation(index: int, size: tuple[int, int]) -> Image.Image:
    pass_, label = divmod(index, _SPECIES)
    image = _drawing(size, label)
    if pass_ % 2:
        image = ImageOps.mirror(image)
    width, height = image.size
    cut = pass_ // 2 % 8 / 16  # of the width and height
    return image.crop((int(cut * width), int(cut * height), width, height))


@lru_cache(maxsize=4 * _SPECIES)
def _drawing(size: tuple[int, int], label: int) -> Image.Image:
    return _birds(size).draw(label=label, index=label).image


@lru_cache(maxsize=4)
def _birds(size: tuple[int, int]) -> DrawnBirds:
    height, width = (min(max(side, 32), 4096) for side in size)  # what can be drawn; the transform does the rest
    return DrawnBirds(species=_SPECIES, difficulty=0.7, size=(height, width))


def answers(backend: Backend, pictures: Pixels) -> Iterator[Outputs]:
    """What a backend answers, batch by batch; the last batch may be smaller."""
    for begin in range(0, len(pictures), backend.batch_size):
        yield backend(pictures[begin : begin + backend.batch_size])


def agreement(backend: Backend, wanted: Outputs, pictures: Pixels) -> Agreement:
    """Compare the answers of a backend with the reference.

    Args:
        backend: It is asked for all pictures, in batches of its size, the last of which should not be full.
        wanted: The reference's answers to these pictures.
        pictures: uint8 (N, H, W, C).
    """
    parts = list(answers(backend, pictures))
    embeddings = _joined([part.embeddings for part in parts], wanted.embeddings)
    logits = None
    if wanted.logits is not None:
        logits = _joined([part.logits for part in parts if part.logits is not None], wanted.logits)
    whole = embeddings is not None and (logits is None) == (wanted.logits is None)
    found = [array for array in (embeddings, logits) if array is not None]
    finite = whole and all(bool(np.isfinite(array).all()) for array in found)
    if embeddings is None or not finite or not np.isfinite(wanted.embeddings).all():
        worst = {
            "same": 0.0,
            "lead": 1.0,
            "probability": 1.0,
            "error": np.inf,
            "logit_error": np.inf,
            "correlation": -1.0,
        }
        return Agreement(pictures=len(pictures), whole=whole, finite=False, **worst)
    same, lead, probability = 1.0, 0.0, 0.0
    if logits is not None and wanted.logits is not None:
        same, lead, probability = _classes(logits, wanted.logits.astype(np.float64))
    return Agreement(
        pictures=len(pictures),
        whole=True,
        finite=True,
        same=same,
        lead=lead,
        probability=probability,
        error=_error(embeddings, wanted.embeddings.astype(np.float64)),
        logit_error=0.0
        if logits is None or wanted.logits is None
        else _error(logits, wanted.logits.astype(np.float64)),
        correlation=_correlation(embeddings, wanted.embeddings.astype(np.float64)),
    )


def refusal(found: Agreement, precision: str) -> str | None:
    """Why answers in this precision are too far from the reference; None if they are near enough.

    Args:
        found: The comparison.
        precision: A key of ``BOUNDS``.
    """
    bounds = BOUNDS[precision]
    if not found.whole:
        return f"it does not give one answer for each of {found.pictures} pictures"
    if not found.finite:
        return "its answers, or those of torch fp32, are not all numbers"
    if found.probability > bounds.probability:
        return f"a probability is off by {found.probability:.2g}, more than {bounds.probability:g}"
    if found.lead > bounds.probability:
        return (
            f"another class comes out best where the best leads by {found.lead:.2g}, more than {bounds.probability:g}"
        )
    for what, error in (("embeddings", found.error), ("logits", found.logit_error)):
        if not error <= bounds.error:
            return f"its {what} are off by {error:.2g} of what lies between pictures, more than {bounds.error:g}"
    if not found.correlation >= bounds.correlation:
        return f"its embeddings tell pictures apart in another way (correlation {found.correlation:.2g})"
    return None


def _joined(parts: list[Floats], wanted: Floats) -> Doubles | None:
    """All rows, or None if their number or length is not that of the reference."""
    if any(part.ndim != 2 or part.shape[1] != wanted.shape[1] for part in parts):
        return None
    rows = np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, wanted.shape[1]))
    return rows if len(rows) == len(wanted) else None


def _classes(logits: Doubles, wanted: Doubles) -> tuple[float, float, float]:
    """Share of same best classes, the largest lead where they are not, largest difference of a probability."""
    found, right = _softmax(logits), _softmax(wanted)
    best, should = found.argmax(axis=1), right.argmax(axis=1)
    rows = np.arange(len(right))
    # The lead over the class that came out best; over the second it would be less, and hide a far worse class.
    leads = (right[rows, should] - right[rows, best])[best != should]
    return float((best == should).mean()), float(leads.max(initial=0)), float(np.abs(found - right).max())


def _softmax(logits: Doubles) -> Doubles:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _error(found: Doubles, wanted: Doubles) -> float:
    """Largest difference of a row from what it should be, in units of how much rows differ.

    What all pictures have in common would hide a backend that hears little of the picture, so it does not count. Where
    rows hardly differ, as in a network that has learned nothing, rounding would be all that is seen; there the unit is
    a part of their length.
    """
    spread = np.sqrt((np.square(wanted - wanted.mean(axis=0)).sum(axis=1)).mean())
    length = np.sqrt(np.square(wanted).sum(axis=1).mean())
    off = float(np.sqrt(np.square(found - wanted).sum(axis=1)).max())
    unit = float(max(spread, _FLAT * length))
    return off / unit if unit > 0 else (0.0 if off == 0 else float("inf"))


def _correlation(found: Doubles, wanted: Doubles) -> float:
    found, wanted = found - found.mean(axis=0), wanted - wanted.mean(axis=0)
    if not wanted.any():  # a network that tells nothing apart
        return 1.0
    length = float(np.linalg.norm(found) * np.linalg.norm(wanted))
    return float((found * wanted).sum()) / length if length > 0 else 0.0
