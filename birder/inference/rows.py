"""One row for each picture: what it shows, or why it could not be read.

Shapes: K classes of the model, D size of the embedding.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from birder.inference.options import LARGEST_BATCH

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Status: TypeAlias = Literal["ok", "unsure", "not_in_list", "error"]

BLOCK = LARGEST_BATCH
"""Inputs are worked through in blocks of so many. Batches never reach over the end of one, and a part of a run that is
shared out has whole blocks, so that each picture is in the same company wherever, and however often, a run is begun."""

NOT_FINITE = "not_finite: the network's answer is not a number (NaN)"
"""Reason of a row whose picture is sound, while the network is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What became of one picture."""

    path: str
    """The file, as it was given or found."""
    status: Status = "ok"
    """``ok``; ``unsure`` if the best score is below the least one asked for; ``not_in_list`` if the picture is too new
    to show any class of the model; ``error`` if there is no answer."""
    reason: str = ""
    """Why there is no answer, or what is wrong with the picture: a code, a colon and some words; see ``code``."""
    labels: tuple[str, ...] = ()
    """Class names, most probable first."""
    scores: tuple[float, ...] = ()
    """Their probabilities, 0-1; with a checklist, among the classes that are on it."""
    open_scores: tuple[float, ...] = ()
    """With a checklist, their probabilities among all classes of the model."""
    novelty: float | None = None
    """The share of known pictures that look less new, 0-1; None if the model was not calibrated for it."""
    taken: str = ""
    """When the picture was taken, by its EXIF data, as ``2026-05-17T06:12:44``; empty where that is not noted."""
    embedding: Floats | None = field(default=None, compare=False)
    """(D,), if embeddings were asked for."""
    stamp: tuple[int, int] = (0, 0)
    """Size of the file in bytes and time of its last change in nanoseconds, when it was read; zeros if it was not."""

    @property
    def code(self) -> str:
        """The first word of the reason, which stays the same from version to version; empty without a reason."""
        return self.reason.partition(":")[0]
