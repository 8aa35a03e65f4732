"""What ``birder calibrate`` found out about a network, as it stands in the model file.

The entry ``calibration`` is a table of plain values, the same in both formats. Arrays are text in it, the base64 of
little-endian float32, whatever the type of the weights; so they are no weights to any reader, and readers that know
nothing of calibration pass over them.

Shapes: K classes that had pictures, D size of the embedding, R directions that were kept, Q quantiles.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from birder.errors import ModelFileError

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

KINDS: dict[str, dict[str, str]] = {
    "max_softmax": {},
    "max_logit": {},
    "entropy": {},
    "energy": {},
    "centroids": {"centroids": "KD"},
    "mahalanobis": {"centre": "D", "whitening": "DR", "centroids": "KR"},
    "relative_mahalanobis": {"centre": "D", "whitening": "DR", "centroids": "KR", "background": "RR"},
}
"""Scores of novelty (see ``birder.inference.novelty``), and the arrays that each needs with their shapes."""

_AGAIN = "calibrate the model again (birder calibrate)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Novelty:
    """How to tell that a picture shows none of the model's classes.

    A raw score, which rises with novelty, is looked up among those of pictures that do show one of the classes: the
    novelty of a picture is the share of these that look less new.
    """

    kind: str
    """The raw score, one of ``KINDS``."""
    threshold: float
    """Pictures of a greater novelty, 0-1, have the status ``not_in_list``; at 0.95, so have 5 % of the known ones."""
    known: Array
    """Raw scores of pictures of the classes, (Q,): their quantiles at 0, 1 / Q, …, (Q - 1) / Q."""
    arrays: Mapping[str, Array]
    """What the raw score needs."""
    measured: Mapping[str, float]
    """On pictures of nothing that is in the list, if there were any: ``auroc``, ``auroc_max_softmax``,
    ``fpr95``, ``fpr95_max_softmax``, all 0-1, and how many ``pictures``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What was found on labelled pictures that the network was not trained on."""

    temperature: float
    """Logits are divided by it before the softmax, so that a score is as often right as it says."""
    pictures: int
    """How many there were."""
    data: str
    """Checksum of their labels and paths, in hexadecimal digits."""
    max_error: float | None = None
    """The share of mistakes that ``threshold`` keeps to."""
    threshold: float | None = None
    """The least score whose answers keep that promise on these pictures; None if none does."""
    novelty: Novelty | None = None
    """How to tell what is not in the list; None if that was not asked for, or works no better than a low score."""


def to_entry(calibration: Calibration) -> dict[str, Any]:
    """The calibration as plain values."""
    values: dict[str, Any] = {
        name: getattr(calibration, name) for name in ("temperature", "pictures", "data", "max_error", "threshold")
    }
    novelty = calibration.novelty
    if novelty is not None:
        values["novelty"] = {
            "kind": novelty.kind,
            "threshold": novelty.threshold,
            "known": _to_text(novelty.known),
            "arrays": {name: _to_text(array) for name, array in novelty.arrays.items()},
            "measured": dict(novelty.measured),
        }
    return values


def from_entry(entry: Any, classes: int) -> Calibration:
    """The calibration that such values mean.

    Args:
        entry: What stands in the file.
        classes: How many the model has.

    Raises:
        ModelFileError: The values are damaged, contradict each other or the number of classes, or are of a newer kind.
    """
    table = _table(entry, "calibration")
    pictures, data, novelty = table.get("pictures"), table.get("data"), table.get("novelty")
    temperature = _number(table, "temperature")
    if temperature <= 0 or type(pictures) is not int or pictures < 1 or not isinstance(data, str):
        raise ModelFileError(
            f"calibration has a temperature of {temperature}, pictures {str(pictures)[:20]} and data "
            f"{str(data)[:20]!r}, which no calibration gives; {_AGAIN}"
        )
    return Calibration(
        temperature=temperature,
        pictures=pictures,
        data=data,
        max_error=None if table.get("max_error") is None else _share(table, "max_error"),
        threshold=None if table.get("threshold") is None else _share(table, "threshold"),
        novelty=None if novelty is None else _novelty(_table(novelty, "calibration.novelty"), classes),
    )


def check_embedding(calibration: Calibration, size: int) -> None:
    """Accept a calibration for a network whose embedding has so many numbers.

    Raises:
        ModelFileError: It is one for another network.
    """
    if calibration.novelty is None:
        return
    novelty = calibration.novelty
    for name, letters in KINDS[novelty.kind].items():
        if "D" in letters and novelty.arrays[name].shape[letters.index("D")] != size:
            raise ModelFileError(
                f"calibration.novelty.{name} is {novelty.arrays[name].shape}, made for another network: the embedding "
                f"of this one has {size} numbers; {_AGAIN}"
            )


def _novelty(table: Mapping[str, Any], classes: int) -> Novelty:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelFileError(
            f"calibration.novelty is of the kind {str(kind)[:40]!r}; this version knows {', '.join(KINDS)}; {_AGAIN}"
        )
    stored = _table(table.get("arrays"), "calibration.novelty.arrays")
    arrays = {name: _from_text(stored.get(name), f"calibration.novelty.{name}") for name in KINDS[kind]}
    sizes: dict[str, int] = {}
    for name, letters in KINDS[kind].items():
        shape = arrays[name].shape
        fits = len(shape) == len(letters) and all(
            sizes.setdefault(letter, size) == size for letter, size in zip(letters, shape, strict=True)
        )
        if not fits or not 1 <= sizes.get("K", 1) <= classes or 0 in shape:
            raise ModelFileError(
                f"calibration.novelty.{name} is {shape}, which fits neither the others nor {classes} classes; {_AGAIN}"
            )
    known = _from_text(table.get("known"), "calibration.novelty.known")
    if known.ndim != 1 or len(known) < 3 or (np.diff(known) < 0).any():
        raise ModelFileError(f"calibration.novelty.known is no row of rising numbers; {_AGAIN}")
    measured = _table(table.get("measured"), "calibration.novelty.measured")
    return Novelty(
        kind=kind,
        threshold=_share(table, "threshold"),
        known=known,
        arrays=arrays,
        measured={name: _number(measured, name) for name in measured},
    )


def _to_text(array: Array) -> dict[str, Any]:
    numbers = np.ascontiguousarray(array, "<f4")
    return {"shape": list(numbers.shape), "float32": base64.b64encode(numbers.tobytes()).decode("ascii")}


def _from_text(stored: Any, name: str) -> Array:
    table = _table(stored, name)
    shape, text = table.get("shape"), table.get("float32")
    try:
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("its shape is none")
        data = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
        if len(data) != 4 * math.prod(shape):
            raise ValueError(f"{len(data)} bytes are not {shape} numbers")
    except (binascii.Error, ValueError) as error:
        raise ModelFileError(f"{name} is damaged ({error}); get the file again, or {_AGAIN}") from error
    array = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise ModelFileError(f"{name} has values that are infinite or no numbers; get the file again, or {_AGAIN}")
    return array


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ModelFileError(f"{name} is no table, but {str(value)[:80]!r}; get the file again, or {_AGAIN}")
    return value


def _number(table: Mapping[str, Any], name: str) -> float:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelFileError(f"calibration: {name} is no number, but {str(value)[:40]!r}; {_AGAIN}")
    return float(value)


def _share(table: Mapping[str, Any], name: str) -> float:
    value = _number(table, name)
    if not 0 <= value <= 1:
        raise ModelFileError(f"calibration: {name} is {value}, which is not between 0 and 1; {_AGAIN}")
    return value
