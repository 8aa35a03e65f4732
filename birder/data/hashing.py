"""Perceptual hashes: 64 bits that stay nearly the same when a picture is resized, compressed or made lighter.

The hash holds the signs of the 64 lowest frequencies of a picture's brightness, as a cosine transform gives them. As a
mirror image only turns the signs of the odd horizontal frequencies, its hash follows from that of the picture.

Two hashes are alike when they differ in few bits. ``hamming_pairs`` finds all such pairs of a million hashes without
comparing each with each. A hash proposes, and thumbnails decide: see ``similarity``.

Paper: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions, http://phash.org/docs/pubs/thesis_zauner.pdf
Differs: The signs are compared with zero, not with the median, for the mirror's sake.
Paper: Manku, Jain, Das Sarma 2007, Detecting Near-Duplicates for Web Crawling, https://doi.org/10.1145/1242572.1242592
"""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

BITS = 64
THUMBNAIL = 16
"""Height and width of a thumbnail, in pixels."""
_GRID = 32  # pixels that the frequencies are computed from, each way
_ROWS, _COLUMNS = 9, 8  # of the frequencies; all but the mean, as far as 64
_PAIRS_AT_ONCE = 1 << 18


def _cosines() -> Array:
    """The lowest frequencies of the discrete cosine transform (type II), (9, 32)."""
    places = (np.arange(_GRID) + 0.5) * math.pi / _GRID
    return np.cos(np.arange(_ROWS)[:, None] * places)


_COSINES = _cosines()
_POWERS = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
_MIRROR = np.bitwise_or.reduce(_POWERS[np.arange(1, BITS + 1) % _COLUMNS % 2 == 1])


def perceptual_hash(image: Image.Image) -> tuple[int, Array]:
    """The hash of an RGB picture, and its thumbnail: brightness, uint8 (16, 16)."""
    grey = image.resize((_GRID, _GRID), Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")
    pixels = np.asarray(grey, np.float64)
    frequencies = _COSINES @ pixels @ _COSINES[:_COLUMNS].T
    bits = frequencies.ravel()[1 : BITS + 1] > 0
    blocks = pixels.reshape(THUMBNAIL, _GRID // THUMBNAIL, THUMBNAIL, _GRID // THUMBNAIL)
    return int(_POWERS[bits].sum()), np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def mirrored(hashes: Array) -> Array:
    """The hashes of the mirror images, uint64 (N,) -> (N,)."""
    return hashes ^ _MIRROR


def similarity(first: Array, second: Array) -> Array:
    """How alike thumbnails are, uint8 (N, 16, 16) twice -> (N,): their correlation, 1 for the same up to contrast."""
    one, two = (
        pictures.reshape(len(pictures), -1) - pictures.mean(axis=(1, 2), keepdims=True)[:, 0]
        for pictures in (first.astype(np.float32), second.astype(np.float32))
    )
    lengths = np.sqrt((one * one).sum(axis=1) * (two * two).sum(axis=1))
    return (one * two).sum(axis=1) / np.maximum(lengths, 1e-6)


def hamming_pairs(hashes: Array, radius: int) -> Iterator[tuple[Array, Array, Array]]:
    """All pairs of hashes that differ in at most ``radius`` bits, each pair once.

    The bits are cut into ``radius + k`` pieces. Two such hashes agree in at least k of them, so it is enough to compare
    hashes that agree in some k pieces: these lie side by side when the hashes are sorted by those bits, for each choice
    of k pieces in turn. Many pieces mean many sortings and few comparisons; the number of hashes decides.

    Args:
        hashes: uint64 (N,).
        radius: Most bits that may differ, at least 0.

    Yields:
        Some of the pairs at a time: the numbers of the two, int64 (P,), the lower first, and how many bits differ.
    """
    same = _pieces_in_common(len(hashes), radius)
    pieces = [np.bitwise_or.reduce(_POWERS[start :: radius + same]) for start in range(radius + same)]
    for chosen in combinations(range(len(pieces)), same):
        mask = np.bitwise_or.reduce([np.uint64(0), *(pieces[number] for number in chosen)])
        # A pair that agrees in more than k pieces counts where it is met first.
        earlier = [pieces[number] for number in range(max(chosen, default=0)) if number not in chosen]
        for first, second in _equal_pairs(hashes, mask):
            difference = hashes[first] ^ hashes[second]
            bits = np.bitwise_count(difference)
            found = bits <= radius
            first, second, difference, bits = (values[found] for values in (first, second, difference, bits))
            new = np.ones(len(first), bool)
            for piece in earlier:
                new &= (difference & piece) != 0
            if new.any():
                first, second = first[new], second[new]
                yield np.minimum(first, second), np.maximum(first, second), bits[new].astype(np.int64)


def _pieces_in_common(count: int, radius: int) -> int:
    """The k that makes ``hamming_pairs`` cheapest, if the hashes are spread evenly."""
    if radius == 0:
        return 1

    def cost(same: int) -> float:
        sortings = math.comb(radius + same, same)
        compared = count * count / 2 ** (1 + BITS * same / (radius + same))
        return sortings * (20.0 * count + compared)  # sorting one costs about as much as comparing twenty

    return min(range(min(6, BITS - radius + 1)), key=cost)


def _equal_pairs(hashes: Array, mask: np.uint64) -> Iterator[tuple[Array, Array]]:
    """Pairs of numbers of the hashes that agree in the bits of the mask."""
    if len(hashes) < 2:
        return
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")  # the same order on every machine
    keys = keys[order]
    bounds = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    ends = np.repeat(bounds[1:], np.diff(bounds))
    left = np.arange(len(keys))
    for shift in range(1, len(keys)):
        left = left[left + shift < ends[left]]
        if not len(left):
            return
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            part = left[start : start + _PAIRS_AT_ONCE]
            yield order[part], order[part + shift]
