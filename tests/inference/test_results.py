"""Files of results: what stands in them, and that there is never half a file."""

import csv
import errno
import json
import os
import sys
from pathlib import Path

import pytest

from birder.errors import ConfigError, MissingPackage
from birder.inference.predictor import Failure, Prediction
from birder.inference.results import cells, check_results, header, open_results

ROWS = [
    Prediction(path=Path("a/1.jpg"), names=("Wren", "Emu"), probabilities=(0.75, 0.25)),
    Failure(path=Path("a/cut, off.jpg"), reason="truncated"),
    Prediction(path=Path('ümläut "鳥".jpg'), names=("Größe, 2", "Emu"), probabilities=(1 / 3, 1e-9)),
    Prediction(path=Path(os.fsdecode(b"odd\xff.jpg")), names=("Emu",), probabilities=(1.0,)),
]


def write(path: Path, top: int = 2) -> Path:
    with open_results(path, top) as results:
        results.write(ROWS[:1])
        results.write(row for row in ROWS[1:])
    return path


def test_csv_to_the_letter(tmp_path: Path) -> None:
    content = write(tmp_path / "x.csv").read_bytes()
    assert content.decode("utf-8") == (
        "file,species,probability,species_2,probability_2,error\n"
        "a/1.jpg,Wren,0.750000,Emu,0.250000,\n"
        '"a/cut, off.jpg",,,,,truncated\n'
        '"ümläut ""鳥"".jpg","Größe, 2",0.333333,Emu,0.000000,\n'
        "odd\\udcff.jpg,Emu,1.000000,,,\n"
    )


def test_csv_can_be_read_back(tmp_path: Path) -> None:
    with open(write(tmp_path / "X.CSV"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows[:3]] == [str(row.path) for row in ROWS[:3]]
    assert [row["error"] for row in rows] == ["", "truncated", "", ""]


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in write(tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "file": "a/1.jpg",
        "predictions": [{"species": "Wren", "probability": 0.75}, {"species": "Emu", "probability": 0.25}],
        "error": None,
    }
    assert lines[1] == {"file": "a/cut, off.jpg", "predictions": [], "error": "truncated"}
    assert lines[2]["predictions"][0] == {"species": "Größe, 2", "probability": 0.333333}
    assert os.fsencode(lines[3]["file"]) == b"odd\xff.jpg"


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "x.parquet"))
    assert table.column_names == header(2)
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "float", "string", "float", "string"]
    rows = table.to_pylist()
    assert rows[0] == {
        "file": "a/1.jpg",
        "species": "Wren",
        "probability": 0.75,
        "species_2": "Emu",
        "probability_2": 0.25,
        "error": None,
    }
    assert list(rows[1].values()) == ["a/cut, off.jpg", None, None, None, None, "truncated"]
    assert abs(rows[2]["probability_2"] - 1e-9) < 1e-15
    assert rows[3]["file"] == "odd\\udcff.jpg"


def test_parquet_in_many_groups_and_in_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("birder.inference.results._ROWS_AT_ONCE", 3)
    file = parquet.ParquetFile(write(tmp_path / "x.parquet"))
    assert [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)] == [3, 1]
    with open_results(tmp_path / "none.parquet", 1):
        pass
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("top", [1, 3])
def test_header_and_cells_are_of_one_length(top: int) -> None:
    assert header(1) == ["file", "species", "probability", "error"]
    for row in ROWS:
        assert len(cells(row, top)) == len(header(top)) == 2 * top + 2


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_after_an_error_the_old_file_is_untouched(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_results(path, 2) as results:
        results.write(ROWS)
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with open_results(tmp_path / "x.csv", 2) as results:
        results.write(ROWS)
        assert not (tmp_path / "x.csv").exists()
    assert (tmp_path / "x.csv").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, row: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("birder.inference.results._JsonLines.write", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        write(tmp_path / "x.jsonl")
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_rows_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield ROWS[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"), open_results(tmp_path / "x.csv", 2) as results:
        results.write(rows())


def test_what_would_go_wrong_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, words in (
        (tmp_path / "x.xlsx", "ends in .csv, .jsonl, .parquet"),
        (tmp_path / "x", "ends in .csv"),
        (tmp_path / "no" / "x.csv", "does not exist; create it first"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_results(path)
        with pytest.raises(ConfigError, match=words), open_results(path, 1):
            raise AssertionError("the work was begun")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_results(tmp_path / "folder.csv")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_results(tmp_path / "x.csv")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"birder\[tables\]"):
        check_results(tmp_path / "x.parquet")
    check_results(tmp_path / "x.csv")
