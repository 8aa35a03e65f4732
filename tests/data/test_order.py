"""The order of pictures is a pure function of seed and epoch."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.data.order import batches, epoch_order, steps_per_epoch


def test_an_epoch_sees_every_picture_once():
    assert sorted(epoch_order(1000, seed=3, epoch=5)) == list(range(1000))


def test_the_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(100, seed=1, epoch=2)
    np.random.default_rng().random(17)
    assert np.array_equal(first, epoch_order(100, seed=1, epoch=2))
    assert not np.array_equal(first, epoch_order(100, seed=1, epoch=3))
    assert not np.array_equal(first, epoch_order(100, seed=2, epoch=2))


def test_the_order_is_the_same_on_every_machine():
    """Recorded; a change would break the resuming of runs that began before it."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


@given(count=st.integers(1, 40), size=st.integers(1, 50), cut=st.integers(0, 60), seed=st.integers(0, 5))
def test_a_stream_can_be_entered_at_any_step(count, size, cut, seed):
    whole = list(batches(count, size, seed=seed, start=0, stop=60))
    assert whole[cut:] == list(batches(count, size, seed=seed, start=cut, stop=60))


@pytest.mark.parametrize(("count", "size", "steps"), [(10, 3, 3), (9, 3, 3), (2, 3, 1), (1, 1, 1)])
def test_batches_are_full_and_epochs_apart(count, size, steps):
    assert steps_per_epoch(count, size) == steps
    stream = list(batches(count, size, seed=0, start=0, stop=2 * steps))
    assert all(len(batch) == min(size, count) for batch in stream)
    for epoch in (0, 1):
        keys = list(itertools.chain(*stream[epoch * steps : (epoch + 1) * steps]))
        assert {number for number, _ in keys} == {epoch}
        assert len(set(keys)) == len(keys)
