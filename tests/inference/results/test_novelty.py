"""Novelty and the status ``not_in_list`` in files of results, and in what is made of these."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birder.errors import DataError
from birder.inference.results.layout import Layout
from birder.inference.results.merging import merge
from birder.inference.results.output import open_output
from birder.inference.results.selection import Selection
from birder.inference.results.summary import Summary
from birder.inference.results.tables import Table
from birder.inference.rows import Row

EIGHTH, NEW = 0.125, float(np.float32(0.9996))
ROWS = [
    Row(path="1.jpg", labels=("Wren", "Emu"), scores=(0.75, 0.25), novelty=EIGHTH, taken="2026-05-17T06:12:44"),
    Row(path="2.jpg", status="error", reason="missing: no such file"),
    Row(path="3.jpg", status="not_in_list", labels=("Emu", "Wren"), scores=(0.875, 0.125), novelty=NEW),
    Row(path="4.jpg", status="not_in_list", labels=("Emu",), scores=(0.5,), novelty=0.96875),
    Row(path="5.jpg", status="unsure", labels=("Emu", "Wren"), scores=(0.5, 0.5), novelty=0.0),
]
LAYOUT = Layout(top=2, novelty=True)


def write(path: Path, layout: Layout = LAYOUT, rows: list[Row] = ROWS) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with open_output(path, layout) as output:
        output.write(rows)
    return path


def test_the_column_stands_before_the_time(tmp_path: Path) -> None:
    assert write(tmp_path / "r.csv").read_text().splitlines() == [
        "path,status,reason,label_1,score_1,label_2,score_2,novelty,taken",
        "1.jpg,ok,,Wren,0.750000,Emu,0.250000,0.125000,2026-05-17T06:12:44",
        "2.jpg,error,missing: no such file,,,,,,",
        "3.jpg,not_in_list,,Emu,0.875000,Wren,0.125000,0.999600,",
        "4.jpg,not_in_list,,Emu,0.500000,,,0.968750,",
        "5.jpg,unsure,,Emu,0.500000,Wren,0.500000,0.000000,",
    ]


def test_lines_of_json(tmp_path: Path) -> None:
    lines = write(tmp_path / "r.jsonl").read_text().splitlines()
    assert lines[0].endswith('"scores": [0.75, 0.25], "novelty": 0.125, "taken": "2026-05-17T06:12:44"}')
    assert '"novelty": null' in lines[1] and '"status": "not_in_list"' in lines[2]


def test_a_parquet_column_has_a_type_and_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "r.parquet"))
    assert str(table.schema.field("novelty").type) == "float"
    assert table["novelty"].to_pylist() == [EIGHTH, None, NEW, 0.96875, 0.0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("open_scores", [False, True])
def test_rows_come_back(tmp_path: Path, suffix: str, open_scores: bool) -> None:
    layout = replace(LAYOUT, open_scores=open_scores)
    wanted = [replace(row, open_scores=row.scores if open_scores else ()) for row in ROWS]
    table = Table(write(tmp_path / f"r{suffix}", layout, wanted))
    assert table.layout == layout
    for row, expected in zip(table, wanted, strict=True):
        assert replace(row, novelty=None) == replace(expected, novelty=None)
        assert row.novelty == (None if expected.novelty is None else pytest.approx(expected.novelty, abs=5e-7))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_without_novelty_nothing_is_said_of_it(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"r{suffix}", Layout(top=2))
    assert not Table(path).layout.novelty
    assert [row.novelty for row in Table(path)] == [None] * 5
    assert b"novelty" not in path.read_bytes()


def test_a_novelty_that_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv")
    path.write_text(path.read_text().replace("0.125000,2026", "much,2026"))
    with pytest.raises(DataError, match="row 1 has a score that is no number"):
        list(Table(path))


def test_with_and_without_are_not_merged(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.csv"), write(tmp_path / "2.csv", Layout(top=2))
    with pytest.raises(DataError, match="2 classes with novelty in one and 2 classes in the other"):
        merge([one, two], tmp_path / "3.csv")
    merge([one, one], tmp_path / "4.csv")
    assert Table(tmp_path / "4.csv").layout == LAYOUT


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"statuses": ["not_in_list"]}, "34"),
        ({"min_novelty": 0.125}, "134"),
        ({"max_novelty": 0.125}, "15"),
        ({"min_novelty": 0.1, "max_novelty": 0.99}, "14"),
        ({"min_novelty": 0.0}, "1345"),
        ({"min_score": 0.6, "max_novelty": 0.5}, "1"),
    ],
)
def test_selection(options: dict[str, object], kept: str) -> None:
    rows = Selection(**options).rows(ROWS)  # type: ignore[arg-type]
    assert "".join(row.path[0] for row in rows) == kept


def test_what_is_not_in_the_list_counts_for_no_species() -> None:
    summary = Summary(listed=1)
    summary.add(ROWS)
    assert [(one.name, one.sure, one.unsure) for one in summary.species] == [("Emu", 0, 1), ("Wren", 1, 0)]
    assert summary.statuses["not_in_list"] == 2
    assert [row.path for row in summary.newest] == ["3.jpg"]
    assert [row.path for row in summary.least_sure] == ["5.jpg"]
