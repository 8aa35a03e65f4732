"""Parts of a run joined to exactly the whole, tables put one after the other, and the accounts beside them."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from birder.cores import available_cores
from birder.errors import ConfigError, DataError
from birder.inference.bulk.inputs import shard
from birder.inference.machine import facts
from birder.inference.results.layout import Layout
from birder.inference.results.merging import merge
from birder.inference.results.output import open_output
from birder.inference.results.run_file import Run, read_run, run_file, write_run
from birder.inference.results.tables import Table
from birder.inference.rows import Row

RUN = Run(
    command="predict",
    model={"name": "wren", "file": "/models/wren.pt", "sha256": "ab", "size": [32, 32], "classes": 3},
    options={"top": 2, "min_score": 0.2},
    backend="torch fp32",
    inputs=["photos"],
    listed="cd",
    started="2026-05-17T06:00:00+00:00",
    finished="2026-05-17T07:00:00+00:00",
    seconds=60.5,
    machine={"cores": 2},
)
TOP = Layout(top=2)
FORMATS = [
    (".csv", TOP),
    (".jsonl", TOP),
    (".parquet", TOP),
    (".npy", Layout(embedding=4)),
    (".parquet", Layout(embedding=4)),
]


def rows(count: int) -> list[Row]:
    """Rows of all kinds, with long fractions."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        scores = random.random(2).astype(np.float32).tolist()
        row = Row(path=f"{number}, ü.jpg", labels=("Wren", f"Emu {number % 7}"), scores=tuple(scores))
        row = dataclasses.replace(
            row, embedding=random.random(4, dtype=np.float32), taken=f"2026-05-{number % 28 + 1:02}T06:12:44"
        )
        made.append(Row(path=f"{number}\r\n", status="error", reason="empty: no bytes") if number % 13 == 5 else row)
    return made


def write(path: Path, some: list[Row], layout: Layout = TOP, run: Run | None = RUN) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    if layout.embedding:
        some = [dataclasses.replace(row, labels=(), scores=()) for row in some]
    with open_output(path, layout) as output:
        output.write(some)
    if run is not None:
        write_run(path, dataclasses.replace(run, statuses=dict(output.statuses), codes=dict(output.codes)))
    return path


def parts(folder: Path, some: list[Row], count: int, suffix: str = ".csv", layout: Layout = TOP) -> list[Path]:
    return [
        write(
            folder / f"part-{part}{suffix}",
            list(shard(some, part, count)),
            layout,
            dataclasses.replace(RUN, shard=[part, count], seconds=float(part), started=f"2026-05-1{part % 10}"),
        )
        for part in range(1, count + 1)
    ]


@pytest.mark.parametrize(("suffix", "layout"), FORMATS)
@pytest.mark.parametrize(("count", "total"), [(0, 2), (63, 1), (64, 2), (65, 3), (500, 3), (500, 9)])
def test_parts_are_joined_to_exactly_the_whole(
    tmp_path: Path, suffix: str, layout: Layout, count: int, total: int
) -> None:
    some = rows(count)
    whole = write(tmp_path / f"whole{suffix}", some, layout)
    files = parts(tmp_path, some, total, suffix, layout)
    results = merge(reversed(files), tmp_path / f"merged{suffix}")
    assert results.statuses.total() == count
    assert (tmp_path / f"merged{suffix}").read_bytes() == whole.read_bytes()
    if suffix == ".npy":
        assert (tmp_path / "merged.npy.csv").read_bytes() == (tmp_path / "whole.npy.csv").read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_parts_of_nothing_but_errors(tmp_path: Path, suffix: str) -> None:
    """What the columns are is still known."""
    layout = Layout(top=2, open_scores=True)
    some = [Row(path=str(number), status="error", reason="empty: no bytes") for number in range(70)]
    whole = write(tmp_path / f"whole{suffix}", some, layout)
    merge(parts(tmp_path, some, 3, suffix, layout), tmp_path / f"merged{suffix}")
    assert (tmp_path / f"merged{suffix}").read_bytes() == whole.read_bytes()


def test_parquet_is_the_same_over_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birder.inference.results.formats._ROWS_AT_ONCE", 50)
    some = rows(333)
    whole = write(tmp_path / "whole.parquet", some)
    merge(parts(tmp_path, some, 3, ".parquet"), tmp_path / "merged.parquet")
    assert (tmp_path / "merged.parquet").read_bytes() == whole.read_bytes()


def test_the_account_of_the_merged(tmp_path: Path) -> None:
    some = rows(200)
    whole = read_run(write(tmp_path / "whole.csv", some))
    merge(parts(tmp_path, some, 3), tmp_path / "merged.csv")
    run = read_run(tmp_path / "merged.csv")
    assert run is not None and whole is not None
    assert run == dataclasses.replace(
        whole, parts=["part-1.csv", "part-2.csv", "part-3.csv"], seconds=6.0, started="2026-05-11"
    )
    assert not run.differs(whole)


def test_parts_may_be_in_another_format(tmp_path: Path) -> None:
    some = rows(200)
    whole = write(tmp_path / "whole.csv", some)
    merge(parts(tmp_path, some, 2, ".jsonl"), tmp_path / "merged.csv")
    assert (tmp_path / "merged.csv").read_bytes() == whole.read_bytes()


def change(path: Path, **values: object) -> None:
    run = read_run(path)
    assert run is not None
    write_run(path, dataclasses.replace(run, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": {"sha256": "ef"}}, "not of one kind: the checksum of the model is ab in one and ef in the other"),
        ({"options": {"top": 2, "min_score": 0.5}}, "the option min_score is 0.2 in one and 0.5 in the other"),
        ({"options": {"top": 2}}, "the option min_score is 0.2 in one and None in the other"),
        ({"backend": "openvino bf16"}, "the backend is torch fp32 in one and openvino bf16"),
        ({"settings": {"batch_size": 8}}, "the setting batch_size is None in one and 8 in the other"),
        ({"finished": ""}, r"the run of .*part-2.csv has not ended"),
        ({"birder": "0.0.1"}, "the version of birder is"),
        ({"command": "embed"}, "the command is predict in one and embed in the other"),
        ({"listed": "00"}, "parts of different sets of pictures: files came or went"),
        ({"inputs": ["other"]}, "parts of different sets of pictures"),
        ({"shard": [2, 4]}, "is part 2 of 4, while other files are parts of 3"),
        ({"shard": [1, 3]}, "are both part 1 of 3"),
        ({"shard": None}, "is a whole run, while other files are parts of a run"),
        ({"statuses": {"ok": 65}}, "part-2.csv has 64 rows, but its run ended with 65"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, values: dict[str, object], words: str) -> None:
    files = parts(tmp_path, rows(200), 3)
    change(files[1], **values)
    with pytest.raises(DataError, match=words):
        merge(files, tmp_path / "merged.csv")
    assert not (tmp_path / "merged.csv").exists() and not run_file(tmp_path / "merged.csv").exists()


def test_missing_and_damaged_parts(tmp_path: Path) -> None:
    files = parts(tmp_path, rows(1000), 9)
    with pytest.raises(DataError, match="2 of 9 parts are missing: 3, 9"):
        merge([file for number, file in enumerate(files, 1) if number not in (3, 9)], tmp_path / "merged.csv")
    with pytest.raises(DataError, match=r"part-2.csv and .*part-2.csv are both part 2 of 9"):
        merge([*files, files[1]], tmp_path / "merged.csv")
    write(files[4], list(Table(files[4]))[:-9], run=None)
    with pytest.raises(DataError, match=r"part-5.csv has \d+ rows, but its run ended with \d+; run it again"):
        merge(files, tmp_path / "merged.csv")
    run_file(files[4]).unlink()
    with pytest.raises(DataError, match=r"part-5.csv has no account beside it, while other files are parts"):
        merge(files, tmp_path / "merged.csv")
    assert not (tmp_path / "merged.csv").exists()


def test_whole_tables_are_put_one_after_the_other(tmp_path: Path) -> None:
    some = rows(100)
    whole = write(tmp_path / "whole.csv", some)
    first, second = write(tmp_path / "a.csv", some[:30]), write(tmp_path / "b.csv", some[30:])
    merge([first, second], tmp_path / "merged.csv")
    assert (tmp_path / "merged.csv").read_bytes() == whole.read_bytes()
    run = read_run(tmp_path / "merged.csv")
    assert run is not None and run.pictures == 100 and run.inputs == ["photos", "photos"] and not run.listed
    merge([second, first], tmp_path / "merged.csv")
    assert (tmp_path / "merged.csv").read_bytes() != whole.read_bytes()


def test_tables_of_which_nothing_is_known(tmp_path: Path) -> None:
    some = rows(100)
    first, second = write(tmp_path / "a.csv", some[:30]), write(tmp_path / "b.csv", some[30:], run=None)
    merge([first, second], tmp_path / "merged.csv")
    assert read_run(tmp_path / "merged.csv") is None
    other = write(tmp_path / "c.csv", some, Layout(top=1), None)
    with pytest.raises(
        DataError, match=r"a.csv and .*c.csv have different columns: 2 classes in one and 1 classes in the other"
    ):
        merge([first, other], tmp_path / "merged.csv")
    listed = write(tmp_path / "d.csv", [], Layout(top=2, open_scores=True), None)
    with pytest.raises(DataError, match=r"2 classes in one and 2 classes with open scores in the other"):
        merge([first, listed], tmp_path / "merged.csv")
    failed = write(tmp_path / "failed.jsonl", some[5:6], run=None)
    assert merge([failed, second], tmp_path / "more.jsonl").statuses.total() == 71


def test_nothing_is_written_over(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", rows(10))
    before = first.read_bytes()
    with pytest.raises(ConfigError, match="is one of the files that are read"):
        merge([first], first)
    second = write(tmp_path / "b.csv", rows(10), run=None)
    with pytest.raises(ConfigError, match=r"is what a run has written, as a.csv.run.json says"):
        merge([second], first)
    with pytest.raises(ConfigError, match="nothing to merge"):
        merge([], tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="results go to a file that ends in"):
        merge([first], tmp_path / "x.npy")
    assert first.read_bytes() == before


def test_an_account_and_what_is_in_it(tmp_path: Path) -> None:
    write_run(tmp_path / "x.csv", RUN)
    assert os.listdir(tmp_path) == ["x.csv.run.json"]
    assert read_run(tmp_path / "x.csv") == RUN
    assert list(json.loads(run_file(tmp_path / "x.csv").read_text()))[:4] == ["command", "model", "options", "backend"]
    assert read_run(tmp_path / "y.csv") is None
    with pytest.raises(ConfigError, match="cannot be written"):
        write_run(tmp_path / "no" / "x.csv", RUN)


def test_the_account_of_a_newer_version(tmp_path: Path) -> None:
    values = dataclasses.asdict(RUN) | {"novelty": 1}
    run_file(tmp_path / "x.csv").write_text(json.dumps(values))
    assert read_run(tmp_path / "x.csv") == RUN


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"command": 1', '{"command": "predict", "statuses": 3}', "\x00"])
def test_a_damaged_account(tmp_path: Path, content: str) -> None:
    run_file(tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=r"x.csv.run.json is damaged"):
        read_run(tmp_path / "x.csv")


def test_tuples_are_lists_in_an_account() -> None:
    one = dataclasses.replace(RUN, options={"size": (1, 2)})
    assert not one.differs(dataclasses.replace(RUN, options={"size": [1, 2]}))


def test_the_machine_is_told() -> None:
    found = facts()
    assert found["cores"] == available_cores() and found["numpy"] == np.__version__
    assert found["processor"] and found["system"] and found["memory_gib"] > 0.1
    assert json.loads(json.dumps(found)) == found
