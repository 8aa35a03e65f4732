"""Files of results: what stands in them, that they can be read again, and that there is never half a file."""

import csv
import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError, MissingPackage
from birder.inference.results.layout import Layout
from birder.inference.results.output import check_output, open_output
from birder.inference.results.tables import Table
from birder.inference.rows import Row

THIRD = float(np.float32(1 / 3))
ROWS = [
    Row(path="a/1.jpg", labels=("Wren", "Emu"), scores=(0.75, 0.25), taken="2026-05-17T06:12:44"),
    Row(path="a/cut, off.jpg", status="error", reason="truncated: its end is missing"),
    Row(path='ümläut "鳥".jpg', status="unsure", labels=("Größe, 2", "Emu"), scores=(THIRD, float(np.float32(1e-9)))),
    Row(path=os.fsdecode(b"odd\xff.jpg"), reason="truncated: read as far as it goes", labels=("Emu",), scores=(1.0,)),
]
HOSTILE = [
    "line\nfeed.jpg",
    "carriage\rreturn.jpg",
    "both\r\n.jpg",
    'quote".jpg',
    '"',
    "=cmd|' /C calc'!A0.jpg",
    "+1.jpg",
    "@x.jpg",
    " blank .jpg ",
    "tab\t.jpg",
    "comma,.jpg",
    "semi;colon.jpg",
    "back\\slash.jpg",
    "\\n.jpg",
    "\x01\x7f.jpg",
    "\u2028\u0085.jpg",
    "é.jpg",
    "e\u0301.jpg",
    "🐦.jpg",
    "NA",
    "null",
    "-",
    os.fsdecode(b"\xff\xfe\x80"),
    os.fsdecode(b"caf\xe9.jpg"),
    "#.jpg",
    "\ufeff.jpg",
    "x" * 4000,
]
TEXTS = [".csv", ".jsonl"]
TABLES = [*TEXTS, ".parquet"]


def write(path: Path, rows: list[Row] = ROWS, layout: Layout | None = None) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with open_output(path, layout or Layout(top=2)) as output:
        output.write(rows[:1])
        output.write(row for row in rows[1:])
    return path


def rounded(row: Row) -> Row:
    """As text keeps it."""
    scores, open_scores = ([round(score, 6) for score in values] for values in (row.scores, row.open_scores))
    return dataclasses.replace(row, scores=tuple(scores), open_scores=tuple(open_scores))


def test_csv_to_the_letter(tmp_path: Path) -> None:
    assert write(tmp_path / "x.csv").read_bytes().decode("utf-8") == (
        "path,status,reason,label_1,score_1,label_2,score_2,taken\n"
        "a/1.jpg,ok,,Wren,0.750000,Emu,0.250000,2026-05-17T06:12:44\n"
        '"a/cut, off.jpg",error,truncated: its end is missing,,,,,\n'
        '"ümläut ""鳥"".jpg",unsure,,"Größe, 2",0.333333,Emu,0.000000,\n'
        "odd\\udcff.jpg,ok,truncated: read as far as it goes,Emu,1.000000,,,\n"
    )


def test_csv_with_a_checklist_to_the_letter(tmp_path: Path) -> None:
    rows = [
        Row(path="1.jpg", labels=("Wren", "Emu"), scores=(0.75, 0.25), open_scores=(0.5, 0.125)),
        Row(path="2.jpg", status="error", reason="empty: the file is empty"),
    ]
    assert write(tmp_path / "x.csv", rows, Layout(top=2, open_scores=True)).read_text(encoding="utf-8") == (
        "path,status,reason,label_1,score_1,label_2,score_2,open_score_1,open_score_2,taken\n"
        "1.jpg,ok,,Wren,0.750000,Emu,0.250000,0.500000,0.125000,\n"
        "2.jpg,error,empty: the file is empty,,,,,,,\n"
    )


def test_json_lines_to_the_letter(tmp_path: Path) -> None:
    assert write(tmp_path / "x.jsonl").read_bytes().decode("utf-8").splitlines()[::2] == [
        '{"path": "a/1.jpg", "status": "ok", "reason": "", "labels": ["Wren", "Emu"], "scores": [0.75, 0.25], '
        '"taken": "2026-05-17T06:12:44"}',
        '{"path": "ümläut \\"鳥\\".jpg", "status": "unsure", "reason": "", "labels": ["Größe, 2", "Emu"], '
        '"scores": [0.333333, 0.0], "taken": ""}',
    ]


def test_parquet_has_types_and_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "x.parquet"))
    assert table.column_names == Layout(top=2).columns
    kinds = [str(kind) for kind in table.schema.types]
    assert kinds == ["string", "string", "string", "string", "float", "string", "float", "timestamp[ms]"]
    first, failed, unsure, odd = table.to_pylist()
    assert first["taken"].isoformat() == ROWS[0].taken and first["reason"] is None
    assert [failed[name] for name in ("label_1", "score_1", "label_2", "score_2", "taken")] == [None] * 5
    assert unsure["score_2"] == ROWS[2].scores[1]  # all its decimals
    assert odd["path"] == "odd\\udcff.jpg"


@pytest.mark.parametrize("suffix", TABLES)
def test_what_is_written_can_be_read(tmp_path: Path, suffix: str) -> None:
    table = Table(write(tmp_path / f"x{suffix}"))
    assert table.layout == Layout(top=2)
    assert list(table) == (ROWS if suffix == ".parquet" else list(map(rounded, ROWS)))
    assert list(table) == list(table)


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("again", TABLES)
def test_every_format_says_the_same(tmp_path: Path, suffix: str, again: str) -> None:
    rows = [rounded(row) for row in Table(write(tmp_path / f"one{suffix}"))]
    through = Table(write(tmp_path / f"two{again}", rows))
    assert list(map(rounded, through)) == list(map(rounded, ROWS))


@pytest.mark.parametrize("suffix", TABLES)
def test_hostile_names_come_back(tmp_path: Path, suffix: str) -> None:
    rows = [Row(path=name, labels=(f'{number}\r"',), scores=(0.5,)) for number, name in enumerate(HOSTILE)]
    rows += [Row(path=name, status="error", reason=f"missing: {name[:9]}") for name in HOSTILE if name.isprintable()]
    path = write(tmp_path / f"x{suffix}", rows, Layout(top=1))
    assert list(Table(path)) == rows
    if suffix != ".parquet":
        again = write(tmp_path / f"again{suffix}", list(Table(path)), Layout(top=1))
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", TEXTS)
@settings(max_examples=30)  # each is flushed to the disk
@given(
    names=st.lists(st.text(st.characters(exclude_characters="\0\\", exclude_categories=["Cs"]), min_size=1), max_size=9)
)
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, suffix: str, names: list[str]) -> None:
    rows = [Row(path=name, reason=name, labels=(name,), scores=(0.5,), taken=name) for name in names]
    assert list(Table(write(tmp_path_factory.getbasetemp() / f"any{suffix}", rows, Layout(top=1)))) == rows


def test_other_programs_read_the_csv(tmp_path: Path) -> None:
    rows = [Row(path=name, labels=("Wren",), scores=(0.5,)) for name in HOSTILE if name.isascii()]
    path = write(tmp_path / "x.csv", rows, Layout(top=1))
    with open(path, encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [row.path for row in rows]
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(path, keep_default_na=False)
    assert list(frame.path) == [row.path for row in rows]
    assert frame.score_1.dtype == "float64" and frame.label_1.eq("Wren").all()


def test_the_columns_follow_from_the_options_alone(tmp_path: Path) -> None:
    failed = [Row(path="x", status="error", reason="empty: the file is empty")]
    one, two = write(tmp_path / "one.csv", failed, Layout(top=3)), write(tmp_path / "two.csv", ROWS, Layout(top=3))
    assert one.read_text().splitlines()[0] == two.read_text(encoding="utf-8").splitlines()[0]
    assert next(iter(Table(two))).labels == ("Wren", "Emu")


@pytest.mark.parametrize("suffix", TABLES)
def test_no_more_classes_than_there_is_room_for(tmp_path: Path, suffix: str) -> None:
    assert [row.labels for row in Table(write(tmp_path / f"x{suffix}", ROWS, Layout(top=1)))] == [
        row.labels[:1] for row in ROWS
    ]


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_of_no_rows(tmp_path: Path, suffix: str) -> None:
    assert list(Table(write(tmp_path / f"x{suffix}", []))) == []


def test_rows_are_counted(tmp_path: Path) -> None:
    with open_output(tmp_path / "x.csv", Layout(top=2)) as output:
        output.write(ROWS)
    assert output.statuses == Counter(ok=2, unsure=1, error=1)
    assert output.codes == Counter(truncated=2)


def test_parquet_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("birder.inference.results.formats._ROWS_AT_ONCE", 3)
    file = parquet.ParquetFile(write(tmp_path / "x.parquet"))
    assert [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)] == [3, 1]
    monkeypatch.setattr("birder.inference.results.formats._NUMBERS_AT_ONCE", 8)  # two rows of two labels and two scores
    file = parquet.ParquetFile(write(tmp_path / "y.parquet"))
    assert file.metadata.num_row_groups == 2


def test_a_time_that_does_not_exist(tmp_path: Path) -> None:
    rows = [Row(path="x", taken="0000-00-00T00:00:00")]
    assert next(iter(Table(write(tmp_path / "x.csv", rows)))).taken == "0000-00-00T00:00:00"
    assert next(iter(Table(write(tmp_path / "x.parquet", rows)))).taken == ""


EMBEDDED = [
    Row(path="1.jpg", embedding=np.array([0.1, -2, 3e-30], np.float32), taken="2026-05-17T06:12:44"),
    Row(path="bad,\n.jpg", status="error", reason="empty: the file is empty"),
    Row(path="3.jpg", embedding=np.array([np.pi, 0, 1e30], np.float32)),
]


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
@pytest.mark.parametrize("top", [0, 2])
def test_embeddings_come_back_to_the_last_bit(tmp_path: Path, suffix: str, top: int) -> None:
    rows = [dataclasses.replace(row, labels=("a", "b"), scores=(0.5, 0.25)) for row in EMBEDDED] if top else EMBEDDED
    layout = Layout(top=top, embedding=3)
    table = Table(write(tmp_path / f"x{suffix}", rows, layout))
    assert table.layout == layout
    assert list(table) == rows  # which does not compare embeddings
    for row, expected in zip(table, rows, strict=True):
        assert (row.embedding is None) == (expected.embedding is None)
        if row.embedding is not None:
            assert row.embedding.dtype == np.float32 and row.embedding.tobytes() == expected.embedding.tobytes()


def test_parquet_of_embeddings(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "x.parquet", EMBEDDED, Layout(embedding=3)))
    assert table.column_names == ["path", "status", "reason", "taken", "embedding"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[3]"
    assert table.column("embedding").to_pylist()[1] is None


def test_an_array_of_embeddings_and_its_table(tmp_path: Path) -> None:
    array = np.load(write(tmp_path / "x.npy", EMBEDDED, Layout(embedding=3)))
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_array_equal(array, [EMBEDDED[0].embedding, EMBEDDED[2].embedding])
    assert (tmp_path / "x.npy.csv").read_bytes().decode() == (
        "path,status,reason,taken,row\n"
        "1.jpg,ok,,2026-05-17T06:12:44,0\n"
        '"bad,\n.jpg",error,empty: the file is empty,,\n'
        "3.jpg,ok,,,1\n"
    )


def test_an_array_of_no_and_of_many_embeddings(tmp_path: Path) -> None:
    layout = Layout(embedding=3)
    assert np.load(write(tmp_path / "x.npy", EMBEDDED[1:2], layout)).shape == (0, 3)
    assert len(list(Table(tmp_path / "x.npy"))) == 1
    write(tmp_path / "y.npy", [EMBEDDED[0]] * 12_345, layout)
    assert np.load(tmp_path / "y.npy").shape == (12_345, 3)
    assert np.load(tmp_path / "y.npy", mmap_mode="r")[-1].tobytes() == EMBEDDED[0].embedding.tobytes()  # type: ignore[union-attr]


def test_an_embedding_of_another_size_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reshape"):
        write(tmp_path / "x.npy", EMBEDDED, Layout(embedding=4))
    assert os.listdir(tmp_path) == []


ALL = [*TABLES, ".npy"]


def layout_for(suffix: str) -> Layout:
    return Layout(embedding=3) if suffix == ".npy" else Layout(top=2)


@pytest.mark.parametrize("suffix", ALL)
def test_after_an_error_the_old_file_is_untouched(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_output(path, layout_for(suffix)) as output:
        output.write(EMBEDDED)
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ALL)
def test_the_file_appears_only_when_it_is_whole(tmp_path: Path, suffix: str) -> None:
    with open_output(tmp_path / f"x{suffix}", layout_for(suffix)) as output:
        output.write(EMBEDDED)
        assert all(name.startswith(".") for name in os.listdir(tmp_path))
    names = {f"x{suffix}", "x.npy.csv"} if suffix == ".npy" else {f"x{suffix}"}
    assert set(os.listdir(tmp_path)) == names


FULL = """
import resource, sys
from birder.errors import ConfigError
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.rows import Row
import numpy as np
size = int(sys.argv[3])
layout = Layout(top=1, embedding=size)
numbers = np.random.default_rng(0).normal(size=max(size, 1)).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with open_output(sys.argv[1], layout) as output:
        for number in range(int(sys.argv[2])):
            row = Row(path=f"{number * 7919 % 10007}.jpg", labels=(f"{number * 31337}",), scores=(1 / (number + 1),),
                      embedding=numbers if size else None)
            output.write([row])
except ConfigError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("suffix", ALL)
def test_a_disk_that_is_full(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    path.write_text("old")
    size = "100" if suffix in (".npy", ".parquet") else "0"
    words = [sys.executable, "-c", FULL, str(path), "20000", size]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert re.search(r"cannot be written: .*File too large; nothing was changed", done.stdout), done.stderr
    assert done.stderr == ""
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_a_disk_that_is_full_at_the_end(tmp_path: Path) -> None:
    """All rows fit into what Python keeps before it writes."""
    with (
        pytest.raises(ConfigError, match="cannot be written: No space"),
        open_output(tmp_path / "x.csv", Layout()) as out,
    ):
        out.write(ROWS)
        out._writer.file = Full(out._writer.file)  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == []


class Full:
    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def close(self) -> None:
        self.file.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_rows_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield ROWS[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"), open_output(tmp_path / "x.csv", Layout(top=2)) as output:
        output.write(rows())


def test_what_would_go_wrong_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, layout, words in (
        ("x.xlsx", Layout(top=1), "results go to a file that ends in .csv, .jsonl, .parquet"),
        ("x", Layout(top=1), "ends in .csv"),
        ("x.npy", Layout(top=1), "ends in .csv"),
        ("x.csv", Layout(embedding=3), "embeddings go to a file that ends in .parquet, .npy"),
        ("no/x.csv", Layout(top=1), "does not exist; create it first"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_output(tmp_path / name, embeddings=layout.embedding > 0)
        with pytest.raises(ConfigError, match=words), open_output(tmp_path / name, layout):
            raise AssertionError("the work was begun")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path / "folder.csv")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_output(tmp_path / "x.csv")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "there.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"birder\[tables\]"):
        check_output(tmp_path / "x.parquet")
    with pytest.raises(MissingPackage, match=r"birder\[tables\]"):
        Table(path)


GOOD = "path,status,reason,label_1,score_1,taken\na.jpg,ok,,Wren,0.5,\n"
OBJECT = json.dumps({"path": "a", "status": "ok", "reason": "", "labels": ["x"], "scores": [1], "taken": ""}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", b"", "are read from files that end in .csv, .jsonl, .parquet, .npy"),
        ("gone.csv", None, "gone.csv cannot be read: No such file"),
        ("x.csv", b"", "is no table of results"),
        ("x.csv", b"file,species\n", "its columns are file, species, where path, status, reason"),
        ("x.csv", b"path,status,reason,score_1,label_1,taken\n", "is no table of results"),
        ("x.csv", b"path,status,reason,taken,row\n", "give the array"),
        ("x.csv", b"\xff\xfep\x00", "no table of results, or damaged"),
        ("x.csv", GOOD.encode() + b"b.jpg,ok,,Wr", "row 2 has 4 cells, not 6; the file may be cut off"),
        (
            "x.csv",
            GOOD.encode() + b"b.jpg,fine,,Wren,0.5,\n",
            "row 2 has the status 'fine', which is none of ok, unsure",
        ),
        ("x.csv", GOOD.encode() + b"b.jpg,ok,,Wren,much,\n", "row 2 has a score that is no number"),
        ("x.csv", GOOD.encode() + b'b.jpg,ok,,Wren,0.5,"2026', "or damaged .unexpected end of data"),
        ("x.jsonl", b"{}\n", "row 1 is no result .*path"),
        ("x.jsonl", b"[]\n", "row 1 is no result"),
        ("x.jsonl", OBJECT.encode() + b'{"path": "b', "row 2 is no JSON; the file may be cut off"),
        ("x.jsonl", OBJECT.replace("ok", "good").encode(), "row 1 has the status 'good'"),
        ("x.jsonl", OBJECT.replace("[1]", "1").encode(), "row 1 is no result"),
        ("x.parquet", b"PAR1 and no more", "is no Parquet file, or damaged"),
        ("x.npy", b"no array", "is no array"),
    ],
)
def test_foreign_and_damaged_files(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        list(Table(tmp_path / name))
    assert str(raised.value).startswith(str(tmp_path / name))


def test_a_foreign_parquet_file(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="its columns are a, where"):
        Table(tmp_path / "x.parquet")
    parquet.write_table(arrow.table({"path": [1], "status": [1], "reason": [1], "taken": [1]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="path and status are no text"):
        Table(tmp_path / "y.parquet")


def test_an_array_and_a_table_that_do_not_belong_together(tmp_path: Path) -> None:
    path, layout = write(tmp_path / "x.npy", EMBEDDED, Layout(embedding=3)), Layout(embedding=3)
    other = write(tmp_path / "y.npy", EMBEDDED[:1], layout)
    index, shorter = tmp_path / "x.npy.csv", (tmp_path / "y.npy.csv").read_text()
    longer = index.read_text()
    index.write_text(shorter)
    with pytest.raises(DataError, match=r"has 2 rows, of which x.npy.csv names 1"):
        list(Table(path))
    (tmp_path / "y.npy.csv").write_text(longer)
    with pytest.raises(DataError, match="do not belong together"):
        list(Table(other))
    index.unlink()
    with pytest.raises(DataError, match=r"has no table x.npy.csv beside it"):
        Table(path)


def test_pandas_may_have_been_in_between(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = write(tmp_path / "x.parquet")
    pandas.read_parquet(path).to_parquet(tmp_path / "y.parquet")
    assert list(Table(tmp_path / "y.parquet")) == ROWS
    csv_path = write(tmp_path / "x.csv")
    pandas.read_csv(csv_path, keep_default_na=False).to_csv(tmp_path / "y.csv", index=False, encoding="utf-8-sig")
    assert list(Table(tmp_path / "y.csv")) == list(map(rounded, ROWS))


FLAT = """
import resource, sys
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.rows import Row
from birder.inference.results.tables import Table

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def run(count):
    rows = (Row(path=f"folder/{number}.jpg", labels=("Wren", "Emu"), scores=(0.75, 0.25)) for number in range(count))
    with open_output(sys.argv[1], Layout(top=2)) as output:
        output.write(rows)
    assert sum(1 for _ in Table(sys.argv[1])) == count
    return peak()

print(run(10_000), run(int(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units there")
@pytest.mark.parametrize(
    ("suffix", "count"),
    [(".csv", 60_000), *(pytest.param(suffix, 1_000_000, marks=pytest.mark.slow) for suffix in TABLES)],
)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str, count: int) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    words = [sys.executable, "-c", FLAT, str(tmp_path / f"x{suffix}"), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.split())
    assert many - few < 10_000, f"{few} KiB with 10,000 rows and {many} with {count}"  # 50,000 rows take 20,000


def test_no_torch_is_needed() -> None:
    results = ", ".join(f"birder.inference.results.{name}" for name in ("tables", "output", "merging"))
    code = f"import {results}, birder.cli.results, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
