"""In which order pictures are seen: a pure function of (seed, epoch), so that a run goes on where it stopped."""

from collections.abc import Iterator

import numpy as np


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, int64, that depends on the arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in one epoch; a set smaller than a batch makes one step."""
    return max(count // batch_size, 1)


def batches(count: int, batch_size: int, *, seed: int, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
    """The pictures of the steps ``start`` to ``stop``, as (epoch, index) pairs.

    Each epoch is one permutation, cut into full batches; what is left over waits for a later epoch's order.
    """
    length = steps_per_epoch(count, batch_size)
    epoch, order = -1, np.empty(0, np.int64)
    for step in range(start, stop):
        if step // length != epoch:
            epoch = step // length
            order = epoch_order(count, seed, epoch)
        first = step % length * batch_size
        yield [(epoch, int(index)) for index in order[first : first + batch_size]]
