"""``birder results``: what it prints, what it writes, and its exit codes."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from birder.inference.bulk.inputs import shard
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.results.run_file import Run, read_run, write_run
from birder.inference.results.tables import Table
from birder.inference.rows import Row

Birder = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

ROWS = [
    Row(path="a/1.jpg", labels=("Wren", "Emu"), scores=(0.9, 0.05), taken="2026-05-17T06:12:44"),
    Row(path="a/\t2.jpg", labels=("Emu", "Wren"), scores=(0.4, 0.3), status="unsure"),
    Row(path="b/3.jpg", labels=("Wren", "Emu"), scores=(0.5, 0.3)),
    Row(path=os.fsdecode(b"b/\xff.jpg"), status="error", reason="empty: the file is empty"),
]


@pytest.fixture
def results(birder: Birder) -> Birder:
    """Run ``birder results`` with some words."""
    return lambda *words: birder("results", *words)


def write(path: Path, rows: list[Row]) -> Path:
    with open_output(path, Layout(top=2)) as output:
        output.write(rows)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", ROWS)


def test_summary_in_lines(results: Birder, table: Path) -> None:
    code, out, err = results("summary", table)
    assert code == 0
    assert out == "Wren\t2\t0\t0.700\t2026-05-17T06:12:44\t2026-05-17T06:12:44\nEmu\t0\t1\t0.400\t\t\n"
    assert err == (
        "4 pictures: 2 ok, 1 unsure, 1 without an answer\n"
        "empty: 1\n"
        "least sure: a/\\t2.jpg: Emu 0.400\n"
        "least sure: b/3.jpg: Wren 0.500\n"
        "least sure: a/1.jpg: Wren 0.900\n"
    )


def test_summary_by_folder_of_several_files(results: Birder, table: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", ROWS[:1])
    code, out, err = results("summary", table, other, "--by", "folder", "--listed", "0")
    assert code == 0 and "least sure" not in err and err.startswith("5 pictures: ")
    assert [line.split("\t")[:4] for line in out.splitlines()] == [
        ["a", "Wren", "2", "0"], ["a", "Emu", "0", "1"], ["b", "Wren", "1", "0"]
    ]  # fmt: skip


def test_summary_as_json(results: Birder, table: Path) -> None:
    code, out, _ = results("summary", table, "--format", "json", "--by", "month")
    facts = json.loads(out)
    assert code == 0 and facts["pictures"] == 4 and facts["codes"] == {"empty": 1}
    assert facts["statuses"] == {"ok": 2, "unsure": 1, "error": 1}
    assert facts["species"][-1] == {
        "month": "2026-05", "species": "Wren", "sure": 1, "unsure": 0, "mean_score": 0.9,
        "first": "2026-05-17T06:12:44", "last": "2026-05-17T06:12:44",
    }  # fmt: skip
    assert facts["least_sure"][0] == {"path": "a/\t2.jpg", "species": "Emu", "score": 0.4}


def test_summary_on_a_terminal(table: Path) -> None:
    pty = pytest.importorskip("pty")
    reader, writer = pty.openpty()
    words = [
        sys.executable,
        "-c",
        "import sys; from birder.cli.results import app; app(sys.argv[1:])",
        "summary",
        table,
    ]
    subprocess.run(words, stdout=writer, stderr=subprocess.DEVNULL, check=True, env={**os.environ, "COLUMNS": "100"})
    os.close(writer)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert "mean score" in shown and "Wren" in shown and "\t" not in shown


def test_filter(results: Birder, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, printed, err = results("filter", table, "--output", out, "--species", "wren", "Emu", "--max-score", "0.5")
    assert (code, printed) == (0, "") and err == f"2 rows in {out}\n"
    assert [row.path for row in Table(out)] == ["a/\t2.jpg", "b/3.jpg"]
    code, _, err = results("filter", table, "--output", out, "--status", "error", "--code", "empty")
    assert code == 0 and [row.path for row in Table(out)] == [ROWS[3].path]
    code, _, err = results("filter", table, "--output", out, "--taken-after", "2026-05", "--taken-before", "2026-06")
    assert code == 0 and [row.path for row in Table(out)] == ["a/1.jpg"]


def test_filter_that_finds_nothing(results: Birder, table: Path, tmp_path: Path) -> None:
    code, _, err = results("filter", table, "--output", tmp_path / "out.csv", "--species", "Wrem")
    assert code == 1 and err == f"0 rows in {tmp_path / 'out.csv'}; no picture shows Wrem; did you mean Wren?\n"
    assert list(Table(tmp_path / "out.csv")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{table}"], "is one of the files that are read"),
        (["--output", "{folder}/x.xls"], "results go to a file that ends in"),
        (["--output", "{folder}/x.npy"], "results go to a file that ends in"),
        (["--output", "{folder}/x.csv", "--taken-after", "May"], "is no time such as"),
    ],
)
def test_filter_used_wrongly(results: Birder, table: Path, tmp_path: Path, words: list[str], message: str) -> None:
    before = table.read_bytes()
    code, _, err = results("filter", table, *(word.format(table=table, folder=tmp_path) for word in words))
    assert code == 2 and err.startswith("birder: ") and message in err
    assert table.read_bytes() == before and os.listdir(tmp_path) == ["table.csv"]


def test_merge_of_parts(results: Birder, tmp_path: Path) -> None:
    rows = [Row(path=f"{number}.jpg", labels=("Wren",), scores=(number / 1000,)) for number in range(300)]
    whole = write(tmp_path / "whole.csv", rows)
    files = []
    for part in (1, 2, 3):
        some = list(shard(rows, part, 3))
        files.append(write(tmp_path / f"{part}.csv", some))
        run = Run(command="predict", model={}, options={}, backend="torch", shard=[part, 3])
        run = dataclasses.replace(run, statuses={"ok": len(some)}, finished="2026-05-17T07:00:00+00:00")
        write_run(files[-1], run)
    out = tmp_path / "merged.csv"
    code, printed, err = results("merge", *reversed(files), "--output", out)
    assert (code, printed, err) == (0, "", f"300 rows of 3 files in {out}\n")
    assert out.read_bytes() == whole.read_bytes()
    run = read_run(out)
    assert run is not None and run.pictures == 300 and run.shard is None
    code, _, err = results("merge", *files[:2], "--output", out)
    assert code == 2 and "1 of 3 parts are missing: 3" in err


def test_compare(results: Birder, table: Path, tmp_path: Path) -> None:
    assert results("compare", table, table) == (
        0,
        "",
        "4 pictures in both, 3 with an answer in both: 3 the same (100.00%), 0 changed; greatest difference 0.000000\n",
    )
    changed = [
        Row(path="a/1.jpg", labels=("Emu", "Wren"), scores=(0.6, 0.2), status="unsure"),
        *ROWS[2:],
        Row(path="new"),
    ]
    other = write(tmp_path / "other.csv", changed)
    code, out, err = results("compare", table, other)
    assert code == 1 and out == "a/1.jpg\tWren\t0.900\tEmu\t0.600\t0.700000\n"
    assert err == (
        "3 pictures in both, 2 with an answer in both: 1 the same (50.00%), 1 changed; greatest difference 0.700000\n"
        "ok in the first, unsure in the second: 1\n"
        f"only in {table}: 1, such as a/\\t2.jpg\n"
        f"only in {other}: 1, such as new\n"
    )
    code, out, _ = results("compare", table, other, "--format", "json")
    facts = json.loads(out)
    assert code == 1 and (facts["matched"], facts["same"], facts["only_first"]) == (3, 1, 1)
    assert facts["changes"][0]["labels"] == ["Wren", "Emu"] and ["ok", "unsure", 1] in facts["statuses"]


def test_what_is_no_table(results: Birder, table: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    for words in (["summary"], ["compare", table], ["merge", "--output", tmp_path / "x.csv"]):
        for name, message in (("foreign.csv", "is no table of results"), ("gone.csv", "No such file")):
            code, out, err = results(*words, tmp_path / name)
            assert code == 2 and out == "" and message in err and str(tmp_path / name) in err


@pytest.mark.parametrize(
    "words", [["summary"], ["filter", "x.csv"], ["compare", "x.csv"], ["summary", "x", "--by", "day"]]
)
def test_wrong_use(results: Birder, words: list[str]) -> None:
    code, out, err = results(*words)
    assert code == 2 and out == "" and err
