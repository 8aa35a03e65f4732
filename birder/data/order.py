"""In which order pictures are seen: pure functions of (seed, epoch, step), so that a run goes on where it stopped.

The pictures of a step do not depend on how many processes share them: each takes a contiguous part of one list.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]


class Key(NamedTuple):
    """A place in the stream of training pictures; what a picture looks like there is a function of it and the seed."""

    epoch: int
    """Which epoch, from 0."""
    sample: int
    """Which sample."""
    copy: int = 0
    """How often it was seen before in this epoch."""


def epoch_order(count: int, seed: int, epoch: int) -> Integers:
    """A permutation of ``range(count)``, int64, that depends on the arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in one epoch; a set smaller than a batch makes one step."""
    return max(count // batch_size, 1)


def share(count: int, part: int, parts: int) -> slice:
    """The contiguous part ``part`` of ``count`` things that are cut into ``parts`` as equal as can be, larger first."""
    size, larger = divmod(count, parts)
    first = part * size + min(part, larger)
    return slice(first, first + size + (part < larger))


def batches(
    count: int,
    batch_size: int,
    *,
    seed: int,
    start: int,
    stop: int,
    rank: int = 0,
    world: int = 1,
    balance: float = 0.0,
    labels: Sequence[int] | Integers | None = None,
    repeats: int = 1,
) -> Iterator[list[Key]]:
    """The pictures of the steps ``start`` to ``stop`` that one process takes.

    Each epoch is one permutation, cut into full batches; what is left over waits for a later epoch's order. With
    ``repeats``, a batch is several rounds over as many times fewer pictures, so that an epoch, which has as many steps
    as without, sees a part of them (Hoffer et al. 2020, https://arxiv.org/abs/1901.09335; Berman et al. 2019,
    https://arxiv.org/abs/1902.05509). With ``balance``, see ``BalancedOrder``.

    Args:
        count: Pictures there are.
        batch_size: Pictures of one step, of all processes together.
        seed: Where all random numbers start.
        start: The first step.
        stop: The step after the last.
        rank: This process, from 0: it takes the part ``share(len(batch), rank, world)`` of each step's pictures.
        world: How many processes there are.
        balance: How evenly the classes are seen, 0 to 1.
        labels: The label of each picture, (count,); needed for ``balance`` alone.
        repeats: How often a picture is in a batch.
    """
    length, size = steps_per_epoch(count, batch_size), min(batch_size, count)
    different = -(-size // repeats)
    balanced = None
    if balance:
        assert labels is not None, "balance needs labels"
        balanced = BalancedOrder(np.asarray(labels), length * different, balance, seed)
    epoch, order, copies = -1, np.empty(0, np.int64), np.empty(0, np.int64)
    for step in range(start, stop):
        if step // length != epoch:
            epoch = step // length
            order = epoch_order(count, seed, epoch) if balanced is None else balanced(epoch)
            copies = _earlier(order) if balanced is not None else np.zeros_like(order)
        first = step % length * different
        places = np.tile(np.arange(first, first + different), repeats)
        rounds = np.repeat(np.arange(repeats), different)
        mine = share(size, rank, world)
        yield [
            Key(epoch, int(order[place]), int(copies[place]) * repeats + int(turn))
            for place, turn in zip(places[mine], rounds[mine], strict=True)
        ]


class BalancedOrder:
    """Orders in which rare classes are seen more often, and common ones less, than they have pictures.

    A class is drawn in proportion to ``n ** (1 - balance)``, where n is the number of its pictures: 0 is as often as it
    has pictures, 1 as often as every other, 0.5 the square root (Mahajan et al. 2018,
    https://arxiv.org/abs/1805.00932). Nothing is left to chance that need not be: each epoch has the share of a class,
    rounded up or down; a class goes through all its pictures, shuffled, before one comes again, also from one epoch to
    the next.
    """

    def __init__(self, labels: Integers, picks: int, balance: float, seed: int) -> None:
        """Orders of ``picks`` pictures each, of pictures with these labels (N,)."""
        self.seed = seed
        self.picks = picks
        self.by_class = np.argsort(labels, kind="stable")  # pictures, class after class
        self.sizes = np.unique(labels, return_counts=True)[1]
        # Rounded, so that another machine's last digit of a power makes no other order.
        shares = np.cumsum(np.round(self.sizes ** (1.0 - balance), 6))
        self.edges = shares / shares[-1] * picks
        self._taken = np.zeros_like(self.sizes)  # by each class, in the epochs before this one
        self._epoch = 0

    def __call__(self, epoch: int) -> Integers:
        """Pictures in the order in which the epoch sees them, (picks,)."""
        if epoch < self._epoch:
            self._taken, self._epoch = np.zeros_like(self.sizes), 0
        for past in range(self._epoch, epoch):
            self._taken = self._taken + self.counts(past)
        self._epoch = epoch
        counts = self.counts(epoch)
        classes = np.repeat(np.arange(len(counts)), counts)
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(classes)
        order = np.empty(self.picks, np.int64)
        # The first place of a class takes the next of its pictures, and so on.
        order[np.argsort(shuffled, kind="stable")] = self._next(counts)
        return order

    def counts(self, epoch: int) -> Integers:
        """How often each class is seen in an epoch: its share, rounded up or down by one number for all, (K,)."""
        start = np.random.default_rng((self.seed, epoch, 1)).random()
        return np.diff(np.floor(self.edges + start).astype(np.int64), prepend=0)

    def _next(self, counts: Integers) -> Integers:
        """The next so many pictures of each class, class after class: parts of endless rows of shuffled passes."""
        first = self._taken // self.sizes  # pass over the class, from 0
        passes = np.where(counts > 0, (self._taken + counts - 1) // self.sizes - first + 1, 0)
        lengths = passes * self.sizes
        starts = np.cumsum(lengths) - lengths
        within = np.arange(lengths.sum()) - np.repeat(starts, lengths)  # place in the row of the class
        turn, place = np.divmod(within, np.repeat(self.sizes, lengths))
        offsets = np.cumsum(self.sizes) - self.sizes
        pictures = self.by_class[np.repeat(offsets, lengths) + place]
        keys = _scrambled(pictures, turn + np.repeat(first, lengths), self.seed)
        rows = pictures[np.lexsort((keys, turn, np.repeat(np.arange(len(counts)), lengths)))]
        done = np.repeat(self._taken - first * self.sizes, lengths)
        return rows[(within >= done) & (within < done + np.repeat(counts, lengths))]


def _earlier(order: Integers) -> Integers:
    """How often each entry stands before its place, (N,) -> (N,)."""
    grouped = np.argsort(order, kind="stable")
    values = order[grouped]
    begins = np.r_[True, values[1:] != values[:-1]]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(values)), 0))
    earlier = np.empty_like(order)
    earlier[grouped] = np.arange(len(values)) - first
    return earlier


def _scrambled(pictures: Integers, turns: Integers, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A random number for each (picture, turn), whatever else is asked for: that of SplitMix64 at this place.

    Paper: Steele, Lea, Flood 2014, https://doi.org/10.1145/2714064.2660195
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    key = np.random.SeedSequence((seed, 2)).generate_state(1, np.uint64)
    values = _mixed(key + pictures.astype(np.uint64) * golden)
    return _mixed(values + turns.astype(np.uint64) * golden)


def _mixed(values: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
