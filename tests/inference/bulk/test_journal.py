"""The journal: rows come back as they were, and what is cut off or damaged never comes back as something else."""

import errno
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError
from birder.inference.bulk.inputs import keys
from birder.inference.bulk.journal import Journal, open_journal
from birder.inference.bulk.known import UNKNOWN
from birder.inference.bulk.packing import Names, Packed, pack
from birder.inference.rows import Row

IDENTITY = {"model": "a" * 64, "top": 3, "checklist": None, "precision": "fp32"}

FLOATS = st.floats(width=32, allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Any row: labels that come again, any text, surrogates and line feeds too."""
    labels = draw(st.lists(st.sampled_from(["Twite", "Wren", "", "Ł\n", "\udcff"]) | TEXTS, max_size=4, unique=True))
    scores = draw(st.lists(FLOATS, min_size=len(labels), max_size=len(labels)))
    embedding = draw(st.none() | st.lists(FLOATS, min_size=1, max_size=5))
    return Row(
        path=draw(TEXTS),
        status=draw(st.sampled_from(["ok", "unsure", "error"])),
        reason=draw(TEXTS),
        labels=tuple(labels),
        scores=tuple(scores),
        open_scores=tuple(draw(st.lists(FLOATS, max_size=5))),
        taken=draw(TEXTS),
        embedding=None if embedding is None else np.array(embedding, np.float32),
        stamp=(draw(st.integers(0, 2**63)), draw(st.integers(-(2**62), 2**63 - 1))),
    )


def same(left: Row, right: Row) -> bool:
    return left == right and (
        right.embedding is None
        if left.embedding is None
        else right.embedding is not None
        and right.embedding.dtype == np.float32
        and np.array_equal(left.embedding, right.embedding)
    )


@given(st.lists(rows(), min_size=1, max_size=8))
def test_any_row_comes_back(several: list[Row]) -> None:
    names = Names()
    names.learn(0, names.new(several))
    packed = Packed(pack(several, names))
    assert len(packed) == len(several)
    assert all(same(packed.row(index, names), row) for index, row in enumerate(several))
    expected = keys([row.path for row in several], [row.stamp for row in several])
    assert np.array_equal(packed.paths, expected[0])
    assert np.array_equal(packed.files, expected[1])


def batch(number: int, size: int = 2) -> list[Row]:
    """Rows that are like no others, and bring a new name."""
    return [
        Row(
            path=f"folder/\udcff {number}\n{place}.jpg",
            labels=("Wren", f"species {number}"),
            scores=(0.75, 1 / (number + 2 + place)),
            stamp=(number, place + 1),
        )
        for place in range(size)
    ]


def rounded(row: Row) -> Row:
    return replace(row, scores=tuple(float(np.float32(score)) for score in row.scores))


def every(journal: Journal, several: list[Row]) -> list[Row | None]:
    """Each row as the journal has it, found by path and stamp."""
    numbers = journal.known.find(*keys([row.path for row in several], [row.stamp for row in several]))
    return [None if number == UNKNOWN else next(journal.rows([int(number)])) for number in numbers]


def write(path: Path, count: int) -> list[int]:
    """A journal of so many batches; where each ends."""
    ends = []
    with open_journal(path, IDENTITY) as journal:
        for number in range(count):
            journal.append(batch(number))
            ends.append(path.stat().st_size)
    return ends


def expected(numbers: list[int]) -> list[Row]:
    return [rounded(row) for number in numbers for row in batch(number)]


def test_rows_are_found_at_once_and_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with open_journal(path, IDENTITY) as journal:
        numbers = [journal.append(batch(number)) for number in range(5)]
        assert every(journal, expected(list(range(5)))) == expected(list(range(5)))
        assert list(journal.rows(numbers[3].tolist() + numbers[1].tolist())) == expected([3, 1])
        journal.finish({"inputs": 10})
    with open_journal(path, IDENTITY) as journal:
        assert every(journal, expected(list(range(5)))) == expected(list(range(5)))
        assert journal.finished == {"inputs": 10}
        assert journal.notes == []
        changed = [replace(row, stamp=(7, 7)) for row in batch(2)]
        assert every(journal, changed) == [None] * 2
        journal.append(changed)
        assert every(journal, changed + batch(2)) == [rounded(row) for row in changed] + expected([2])


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for the disk would take most of the time of the many journals below."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.mark.usefixtures("quick_disk")
def test_cut_off_at_every_byte(tmp_path: Path) -> None:
    """Of the last two batches: what was whole is kept, the rest is cut off and said, and writing goes on there."""
    path = tmp_path / "journal"
    ends = write(path, 4)
    whole = path.read_bytes()
    assert ends[-1] == len(whole)
    for size in range(ends[1], len(whole) + 1):
        path.write_bytes(whole[:size])
        left = [number for number in range(4) if ends[number] <= size]
        with open_journal(path, IDENTITY) as journal:
            assert [row for row in every(journal, expected(list(range(4)))) if row] == expected(left), size
            cut = size - path.stat().st_size
            assert path.stat().st_size >= ends[len(left) - 1]
            assert journal.notes == ([f"the last {cut} bytes of {path} were not whole and are cut off"] if cut else [])
            for number in range(len(left), 4):
                journal.append(batch(number))
        with open_journal(path, IDENTITY) as journal:
            assert every(journal, expected(list(range(4)))) == expected(list(range(4))), size


@pytest.mark.usefixtures("quick_disk")
def test_any_byte_flipped(tmp_path: Path) -> None:
    """Behind the header: a batch is lost, or some that need its names; no row is ever another, nor are new ones."""
    path, moments = tmp_path / "journal", random.Random(0)
    ends = write(path, 4)
    whole = path.read_bytes()
    with open_journal(tmp_path / "empty", IDENTITY):
        pass
    start = (tmp_path / "empty").stat().st_size
    for at in range(start, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << moments.randrange(8)]) + whole[at + 1 :])
        hit = next(number for number in range(4) if at < ends[number])
        with open_journal(path, IDENTITY) as journal:
            found = every(journal, expected(list(range(4))))
            assert journal.notes, at
            # The first names are used by all.
            lost = range(4) if hit == 0 and found[-1] is None else [hit]
            wanted = [None if number in lost else row for number in range(4) for row in expected([number])]
            assert found == wanted, at
            journal.append(batch(9))  # its name may get the number of one that was lost
            journal.append(batch(hit))
        with open_journal(path, IDENTITY) as journal:
            again = every(journal, expected([*range(4), 9]))
            wanted = [
                None if number in lost and number != hit else row
                for number in (*range(4), 9)
                for row in expected([number])
            ]
            assert again == wanted, at


@pytest.mark.parametrize("at", [0, 5, 16, 17, 21, 25, 30, 60])
def test_a_damaged_beginning(at: int, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, 1)
    whole = path.read_bytes()
    for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="--restart"), open_journal(path, IDENTITY):
            pass
        assert path.read_bytes() == damaged, "it may be a file of someone else's"
    with open_journal(path, IDENTITY, restart=True) as journal:
        assert every(journal, batch(0)) == [None] * 2


def test_other_options(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, 1)
    before = path.read_bytes()
    with (
        pytest.raises(ConfigError) as caught,
        open_journal(path, {**IDENTITY, "model": "b" * 64, "top": 5, "tta": True}),
    ):
        pass
    text = str(caught.value)
    assert "  model: aaaaaaaaaaaa… → bbbbbbbbbbbb…\n  top: 3 → 5\n  tta: none → True\n" in text
    assert "precision" not in text
    assert "--restart" in text
    assert path.read_bytes() == before


def test_a_batch_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow batches wait for the disk each; quick ones share it; at the end everything is there."""
    synced: list[int] = []
    clock = [1000.0]
    path = tmp_path / "journal"
    with open_journal(path, IDENTITY) as journal:
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), synced.append(path.stat().st_size)))
        monkeypatch.setattr("birder.inference.bulk.journal.time.monotonic", lambda: clock[0])
        for number in range(3):
            clock[0] += 0.2
            journal.append(batch(number))
            assert synced[-1] == path.stat().st_size
        assert len(synced) == 3
        for number in range(3, 6):
            clock[0] += 0.05
            journal.append(batch(number))
        assert len(synced) == 3
    assert len(synced) == 4
    assert synced[-1] == path.stat().st_size


def test_a_write_that_fails_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    ends = write(path, 2)
    with open_journal(path, IDENTITY) as journal:
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(
            ConfigError, match=r"No space left on device. What is in it is kept: free some space and run"
        ):
            journal.append(batch(2))
        assert path.stat().st_size == ends[-1]
        journal.append(batch(2))
    with open_journal(path, IDENTITY) as journal:
        assert every(journal, expected([0, 1, 2])) == expected([0, 1, 2])


class Full:
    """A file on a disk that is full after 20 bytes, once."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.room = 20

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            self.room = 10**9
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written if self.room <= 20 else 0
        return written
