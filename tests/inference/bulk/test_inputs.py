"""Cutting inputs into batches, sharing them out, putting the parts together again, and knowing inputs again."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError
from birder.inference.bulk.inputs import NO_STAMP, batches, interleave, keys, opens, shard, stamp_of
from birder.inference.bulk.known import UNKNOWN, Known
from birder.inference.rows import BLOCK

NUMBERS = st.integers(0, 2**64 - 1).map(lambda number: number >> 60)  # few, so that they come again


def test_a_batch_ends_with_its_block() -> None:
    sizes = [len(batch) for batch in batches(map(str, range(130)), 7)]
    assert sizes == [7] * 9 + [1] + [7] * 9 + [1] + [2]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 64, 1000])
def test_batches_are_all_paths_in_their_order(batch_size: int) -> None:
    paths = [str(number) for number in range(200)]
    assert [path for batch in batches(paths, batch_size) for path in batch] == paths


def test_batches_are_taken_as_needed() -> None:
    def paths() -> object:
        yield from map(str, range(BLOCK))
        raise AssertionError("the second block is not needed yet")

    assert next(batches(paths(), 7)) == list(map(str, range(7)))  # type: ignore[arg-type]


@given(st.integers(0, 1000), st.integers(1, 7))
def test_parts_put_together_are_the_whole(count: int, parts: int) -> None:
    whole = list(range(count))
    shared_out = [list(shard(whole, part, parts)) for part in range(1, parts + 1)]
    assert list(interleave(shared_out)) == whole


@pytest.mark.parametrize("batch_size", [7, 32])
def test_a_part_has_the_batches_of_the_whole(batch_size: int) -> None:
    paths = [str(number) for number in range(1000)]
    whole = {tuple(batch) for batch in batches(paths, batch_size)}
    parts = [tuple(batch) for part in (1, 2, 3) for batch in batches(shard(paths, part, 3), batch_size)]
    assert len(parts) == len(whole)
    assert set(parts) == whole


def test_parts_that_do_not_fit_together() -> None:
    whole = list(range(1000))
    parts = [list(shard(whole, part, 3)) for part in (1, 2, 3)]
    with pytest.raises(DataError, match="part 1 of 3 has rows left"):
        list(interleave([parts[0], parts[1][:-1], parts[2]]))
    with pytest.raises(DataError, match="part 2 of 3 has rows left"):
        list(interleave([parts[1], parts[0], parts[2]]))


@pytest.mark.parametrize(("part", "parts"), [(0, 3), (4, 3), (1, 0), (-1, 3)])
def test_a_part_that_does_not_exist(part: int, parts: int) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        shard([], part, parts)


def test_a_batch_of_nothing() -> None:
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not 0"):
        batches([], 0)


def test_stamps(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"12345")
    os.utime(file, ns=(0, -5_000_000_001))
    assert stamp_of(str(file)) == (5, -5_000_000_001)
    assert opens(str(file))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "no.jpg", tmp_path / "pipe", "a\0b"):
        assert stamp_of(str(path)) == NO_STAMP
    assert not opens(str(tmp_path / "no.jpg"))
    assert not opens(str(tmp_path))
    assert not opens("a\0b")


def test_keys_tell_paths_and_stamps_apart() -> None:
    paths = ["a", "a", "a", "b", "\udcff", "\xff"]
    stamps = [(1, 2), (2, 1), (1, 2), (1, 2), (1, 2), (1, 2)]
    names, files = keys(paths, stamps)
    assert names[0] == names[1] == names[2]
    assert len(set(names.tolist())) == 4
    assert files[0] == files[2]
    assert len(set(files.tolist())) == 5


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=9), max_size=9), st.integers(1, 20))
def test_known_is_a_dict(added: list[list[tuple[int, int]]], pending: int) -> None:
    known, expected, number = Known(), {}, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("birder.inference.bulk.known._PENDING", pending)
        for pairs in added:
            numbers = range(number, number + len(pairs))
            number += len(pairs)
            expected.update(zip(pairs, numbers, strict=True))
            column = np.array(pairs, np.uint64).reshape(-1, 2)
            known.add(column[:, 0], column[:, 1], np.array(numbers, np.uint64))
    every = np.array([(name, file) for name in range(16) for file in range(16)], np.uint64)
    found = known.find(every[:, 0], every[:, 1]).tolist()
    assert found == [expected.get(pair, int(UNKNOWN)) for pair in map(tuple, every.tolist())]
    names = {name for name, _ in expected}
    assert known.has_path(np.arange(16, dtype=np.uint64)).tolist() == [name in names for name in range(16)]
