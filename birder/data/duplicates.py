"""Pictures that are the same, or nearly: the same photograph in another size, compression or light, or mirrored.

Every picture is read once for its fingerprint, and fingerprints are compared. Two pictures are nearly the same when
their perceptual hashes, or that of one and the mirror image of the other, differ in at most ``distance`` of 64 bits,
and their thumbnails correlate by at least ``LEAST_SIMILARITY``. Crops of more than some percent, and rotations, make
other pictures. Those without any contrast resemble everything and are left out.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from birder.data.hashing import BITS, THUMBNAIL, hamming_pairs, mirrored, perceptual_hash, similarity
from birder.data.images import read_image
from birder.data.processes import Progress, each_picture
from birder.data.samples import Samples
from birder.errors import ConfigError, ImageError

Array = np.ndarray[Any, Any]

DISTANCE = 8
"""Bits in which the hashes of nearly the same pictures differ at most; see docs/data.md for the measurements."""
LEAST_SIMILARITY = 0.9
"""Correlation of the thumbnails of nearly the same pictures."""
LEAST_CONTRAST = 3.0
"""Standard deviation of a thumbnail, in 255ths, below which a picture shows nothing."""
MOST_DISTANCE = 12

FINGERPRINT = np.dtype(
    [
        ("digest", "S16"),
        ("hash", "u8"),
        ("thumbnail", "u1", (THUMBNAIL, THUMBNAIL)),
        ("height", "u4"),
        ("width", "u4"),
    ]
)
"""What is kept of a picture: a digest of the file's bytes, hash and thumbnail, and its size; 288 bytes."""

_Fields = tuple[bytes, int, Array, int, int]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Some pairs of pictures that are nearly the same."""

    first: Array
    """The number of the first of each pair, (P,), int64."""
    second: Array
    """That of the second, which is higher."""
    bits: Array
    """In how many bits their hashes differ."""
    mirrored: Array
    """Whether one is the mirror image of the other, (P,), bool."""


def fingerprints(
    samples: Samples, *, workers: int = 0, progress: Progress | None = None
) -> tuple[Array, dict[int, str]]:
    """Read every picture once.

    Args:
        samples: The pictures.
        workers: Processes that read; 0 is this one. The result does not depend on it.
        progress: See ``Progress``.

    Returns:
        An array of ``FINGERPRINT``, one for each sample; and the reasons of those that cannot be read, whose
        fingerprints are zero.
    """
    table = np.zeros(len(samples), FINGERPRINT)
    reasons: dict[int, str] = {}
    for index, fields in enumerate(each_picture(_fingerprint, samples, workers=workers, progress=progress)):
        if isinstance(fields, str):
            reasons[index] = fields
        else:
            table[index] = fields
    return table, reasons


def _fingerprint(samples: Samples, index: int) -> _Fields | str:
    try:
        content = samples.content(index)
        image = read_image(content)
    except ImageError as error:
        return str(error)
    number, thumbnail = perceptual_hash(image)
    return hashlib.blake2b(content, digest_size=16).digest(), number, thumbnail, image.height, image.width


def contrast(thumbnails: Array) -> Array:
    """How much the brightness varies, uint8 (N, 16, 16) -> (N,): the standard deviation, in 255ths."""
    return np.array([thumbnail.std() for thumbnail in thumbnails])


def near_pairs(
    table: Array, *, distance: int = DISTANCE, wanted: Callable[[Pairs], Array] | None = None
) -> Iterator[Pairs]:
    """All pairs of pictures that are nearly the same, in an order that depends on the table alone.

    Args:
        table: An array of ``FINGERPRINT``.
        distance: Bits in which the hashes may differ.
        wanted: Says which of some candidates matter, as bool (P,); only these are compared by their thumbnails. In
            series from a camera that stands still, the pairs may be too many to be compared one by one.

    Yields:
        Some pairs at a time; a pair that resembles itself both ways may come twice.

    Raises:
        ConfigError: A distance that makes no sense.
    """
    if not 0 <= distance <= MOST_DISTANCE:
        raise ConfigError(f"distance: must be 0 to {MOST_DISTANCE} of {BITS} bits, not {distance}")
    numbers = np.flatnonzero(contrast(table["thumbnail"]) >= LEAST_CONTRAST)
    hashes, count = table["hash"][numbers], len(numbers)
    for one, two, bits in hamming_pairs(np.concatenate([hashes, mirrored(hashes)]), distance):
        flipped = two >= count
        # Pairs of two mirror images, and the second way to see that one mirrors the other, say nothing new.
        new = (one < count) & (one < two - count * flipped)
        one, two, bits, flipped = one[new], two[new], bits[new], flipped[new]
        pairs = Pairs(first=numbers[one], second=numbers[two - count * flipped], bits=bits, mirrored=flipped)
        if wanted is not None:
            pairs = chosen(pairs, wanted(pairs))
        if len(pairs.first):
            alike = chosen(pairs, similarities(table, pairs) >= LEAST_SIMILARITY)
            if len(alike.first):
                yield alike


def chosen(pairs: Pairs, mask: Array) -> Pairs:
    """Those of the pairs where the mask is true."""
    return Pairs(
        first=pairs.first[mask], second=pairs.second[mask], bits=pairs.bits[mask], mirrored=pairs.mirrored[mask]
    )


def similarities(table: Array, pairs: Pairs) -> Array:
    """The correlations of the thumbnails of pairs, (P,)."""
    second = table["thumbnail"][pairs.second]
    second = np.where(pairs.mirrored[:, None, None], second[:, :, ::-1], second)
    return similarity(table["thumbnail"][pairs.first], second)


class Groups:
    """Things that belong together, directly or through others; each group is known by its lowest number."""

    def __init__(self, count: int) -> None:
        """Of ``count`` things, each begins alone."""
        self.parent = np.arange(count)

    def of(self, numbers: Array) -> Array:
        """The groups of some things, int64 (N,) -> (N,)."""
        groups = self.parent[numbers]
        while not np.array_equal(above := self.parent[groups], groups):
            groups = above
        self.parent[numbers] = groups
        return groups

    def join(self, first: Array, second: Array) -> None:
        """Put the first and the second of each pair into one group."""
        for one, two in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self._top(one), self._top(two)))
            self.parent[high] = low

    def _top(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = int(self.parent[number])
        return number


def near_groups(table: Array, *, distance: int = DISTANCE) -> Groups:
    """Pictures whose files are the same or that are nearly the same, put into groups."""
    groups = Groups(len(table))
    _, first, which = np.unique(table["digest"], return_index=True, return_inverse=True)
    readable = table["height"] > 0
    groups.join(first[which][readable], np.arange(len(table))[readable])

    def apart(pairs: Pairs) -> Array:
        return groups.of(pairs.first) != groups.of(pairs.second)

    for pairs in near_pairs(table, distance=distance, wanted=apart):
        groups.join(pairs.first, pairs.second)
    return groups
