"""The order of pictures is a pure function of seed, epoch and step, however many processes share it."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.data.order import BalancedOrder, Key, batches, epoch_order, share, steps_per_epoch


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
        assert {key.epoch for key in keys} == {epoch}
        assert len(set(keys)) == len(keys)


def test_a_plain_epoch_is_its_permutation_cut_into_batches():
    keys = list(itertools.chain(*batches(10, 3, seed=4, start=0, stop=3)))
    assert keys == [Key(0, int(index), 0) for index in epoch_order(10, seed=4, epoch=0)[:9]]


@given(count=st.integers(0, 100), parts=st.integers(1, 9))
def test_shares_are_those_of_numpy(count, parts):
    wanted = [part.tolist() for part in np.array_split(np.arange(count), parts)]
    assert [list(range(count))[share(count, part, parts)] for part in range(parts)] == wanted


options = st.fixed_dictionaries(
    {"balance": st.sampled_from([0.0, 0.5, 1.0]), "repeats": st.integers(1, 4), "seed": st.integers(0, 3)}
)


@given(
    count=st.integers(1, 40), size=st.integers(1, 20), world=st.integers(1, 5), cut=st.integers(0, 30), options=options
)
def test_processes_share_one_stream_and_enter_it_anywhere(count, size, world, cut, options):
    """The parts of all ranks are the batches of one process, also when others go on where some stopped."""
    labels = np.arange(count) % 7 % 3
    whole = list(batches(count, size, start=0, stop=40, labels=labels, **options))
    parts = [
        batches(count, size, start=cut, stop=40, labels=labels, rank=rank, world=world, **options)
        for rank in range(world)
    ]
    assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == whole[cut:]


@given(count=st.integers(1, 60), size=st.integers(1, 20), options=options)
def test_no_place_of_an_epoch_looks_like_another(count, size, options):
    labels = np.arange(count) % 7 % 3
    stream = list(batches(count, size, start=0, stop=2 * steps_per_epoch(count, size), labels=labels, **options))
    keys = list(itertools.chain(*stream))
    assert len(set(keys)) == len(keys)
    assert {len(batch) for batch in stream} == {min(size, count)}
    if options["repeats"] == 1:  # the copies of a picture in an epoch are counted from 0 on
        seen = Counter((key.epoch, key.sample) for key in keys)
        assert all(key.copy < seen[key.epoch, key.sample] for key in keys)


def test_repeats_are_rounds_over_fewer_pictures():
    stream = list(batches(20, 6, seed=1, start=0, stop=3, repeats=3))
    order = epoch_order(20, seed=1, epoch=0)
    for number, batch in enumerate(stream):
        pair = order[2 * number : 2 * number + 2].tolist()
        assert batch == [Key(0, sample, copy) for copy in range(3) for sample in pair]
    (batch,) = batches(20, 7, seed=1, start=0, stop=1, repeats=3)  # the last round is cut short
    assert Counter(key.copy for key in batch) == {0: 3, 1: 3, 2: 1}


labels_of_classes = st.lists(st.integers(1, 12), min_size=1, max_size=6).flatmap(
    lambda sizes: st.permutations(np.repeat(np.arange(len(sizes)) * 2, sizes).tolist())
)


@given(labels=labels_of_classes, picks=st.integers(1, 60), balance=st.sampled_from([0.3, 0.5, 1.0]))
def test_balanced_classes_have_their_share_and_go_through_all_their_pictures(labels, picks, balance):
    labels = np.array(labels)
    order = BalancedOrder(labels, picks, balance, seed=3)
    epochs = [order(epoch) for epoch in range(5)]
    sizes = np.unique(labels, return_counts=True)[1]
    shares = sizes ** (1.0 - balance) / (sizes ** (1.0 - balance)).sum() * picks
    stream = np.concatenate(epochs)
    for label, size, wanted in zip(np.unique(labels), sizes, shares, strict=True):
        for epoch in epochs:
            assert np.floor(wanted - 1e-4) <= (labels[epoch] == label).sum() <= np.ceil(wanted + 1e-4)
        own = stream[labels[stream] == label]
        for first in range(0, len(own), size):  # pass after pass, also across epochs
            assert len(set(own[first : first + size])) == len(own[first : first + size])
    again = BalancedOrder(labels, picks, balance, seed=3)
    for epoch in (4, 1, 3):  # entered anywhere, also backwards
        assert np.array_equal(again(epoch), epochs[epoch])


def test_balanced_shares_are_exact_over_many_epochs():
    labels = np.repeat([0, 1, 2], [100, 10, 1])
    order = BalancedOrder(labels, 50, 0.5, seed=0)
    counts = np.mean([order.counts(epoch) for epoch in range(2000)], axis=0)
    roots = np.sqrt([100, 10, 1])
    assert np.abs(counts - roots / roots.sum() * 50).max() < 0.05


def test_balanced_orders_are_shuffled():
    """Classes follow one another by chance, and no two passes of a class are alike."""
    labels = np.repeat([0, 1], [400, 40])
    order = BalancedOrder(labels, 800, 1.0, seed=0)(0)
    changes = (labels[order][1:] != labels[order][:-1]).mean()
    assert 0.45 < changes < 0.55
    rare = order[labels[order] == 1].reshape(10, 40)
    assert len({tuple(row) for row in rare}) == 10
    ranks = np.argsort(rare, axis=1)  # where each picture stands: uncorrelated from pass to pass
    assert np.abs(np.corrcoef(ranks)[np.triu_indices(10, 1)]).mean() < 0.2
    assert abs(np.corrcoef(order[labels[order] == 0][:400], np.arange(400))[0, 1]) < 0.15


def test_the_balanced_order_is_the_same_on_every_machine():
    """Recorded; a change would break the resuming of runs that began before it."""
    order = BalancedOrder(np.repeat([0, 1, 2], [6, 2, 1]), 9, 0.5, seed=0)
    assert [order(epoch).tolist() for epoch in (0, 1)] == [[6, 7, 5, 7, 0, 8, 8, 2, 3], [1, 4, 6, 8, 8, 5, 2, 4, 7]]
