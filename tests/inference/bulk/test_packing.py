"""Batches of rows as bytes: with novelty, and as older versions wrote them, without."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from birder.inference.bulk.journal import open_journal
from birder.inference.bulk.packing import Names, Packed, pack
from birder.inference.rows import Row

ROWS = [
    Row(path="a.jpg", labels=("Wren",), scores=(0.5,), novelty=float(np.float32(0.1)), taken="2026-05-17T06:12:44"),
    Row(path="b.jpg", status="error", reason="missing: no such file"),
    Row(path="ö.jpg", status="not_in_list", labels=("Emu",), scores=(0.25,), novelty=float(np.float32(0.9999))),
    Row(path="0.jpg", labels=("Emu",), scores=(0.25,), novelty=0.0),
]


def packed(rows: list[Row]) -> tuple[bytes, Names]:
    names = Names()
    names.learn(0, names.new(rows))
    return pack(rows, names), names


def test_novelty_comes_back() -> None:
    data, names = packed(ROWS)
    assert [Packed(data).row(index, names) for index in range(len(ROWS))] == ROWS


def test_without_novelty_the_bytes_are_those_of_older_versions() -> None:
    """So journals of older versions go on, and what has no novelty could be read by those."""
    without = [replace(row, novelty=None) for row in ROWS]
    data, names = packed(without)
    assert packed(ROWS)[0] == data + np.array([0.1, np.nan, 0.9999, 0], "<f4").tobytes()
    assert [Packed(data).row(index, names) for index in range(len(ROWS))] == without


def test_a_journal_keeps_both_kinds(tmp_path: Path) -> None:
    without = [replace(row, novelty=None, path=f"old/{row.path}") for row in ROWS[:2]]
    with open_journal(tmp_path / "j", {"a": 1}) as journal:
        numbers = [*journal.append(without).tolist(), *journal.append(ROWS).tolist()]
    with open_journal(tmp_path / "j", {"a": 1}) as journal:
        assert list(journal.rows(numbers)) == [*without, *ROWS]
