"""Runs that are broken off, go on, and end as if nothing had been; the network is invented, see ``broken_off``.

``pytest -m slow tests/inference/bulk/test_run.py`` kills a run 50 times.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from birder.errors import ConfigError
from birder.inference.bulk.inputs import interleave, shard
from birder.inference.bulk.run import Target, locked, run
from birder.inference.rows import Row
from tests.inference.bulk.broken_off import BATCH_SIZE, IDENTITY, found, invented, predict, target

MANY = 2000
FEW = 300


def make(folder: Path, count: int, *, prefix: str = "") -> list[str]:
    """Small files that stand for pictures, each another; some are bad. They are old enough to be whole."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        file = folder / f"{prefix}{number:05}.jpg"
        file.write_bytes((b"bad" if number % 50 == 49 else b"") + f"{prefix}{number}".encode() * (number % 3 + 1))
        os.utime(file, ns=(0, 1_700_000_000_000_000_000 + number))
    return found(folder)()


def start(root: Path, output: Path, folder: Path, *words: str, seconds: float = 0.0) -> "subprocess.Popen[str]":
    """The run as a process of its own."""
    command = [sys.executable, "-m", "tests.inference.bulk.broken_off", str(output), str(folder), str(seconds), *words]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def wait_for(path: Path, size: int, process: "subprocess.Popen[str]") -> None:
    """Until a file has at least that size, or the process is at its end."""
    while process.poll() is None and not (path.exists() and path.stat().st_size >= size):
        time.sleep(0.002)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make(tmp_path_factory.mktemp("pictures"), MANY)


@pytest.fixture(scope="module")
def unbroken(pictures: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("unbroken") / "results.txt"
    predict(pictures, output)
    return output.read_bytes()


def test_rows_are_in_the_order_of_inputs(pictures: list[str], tmp_path: Path) -> None:
    reported: list[tuple[list[str], int]] = []
    stream = invented()
    summary = predict(
        pictures[:200],
        tmp_path / "out.txt",
        stream,
        report=lambda rows, done: reported.append(([row.path for row in rows], done)),
    )
    assert [path for paths, _ in reported for path in paths] == pictures[:200]
    assert [done for _, done in reported] == list(np.cumsum([len(paths) for paths, _ in reported]))
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert len(lines) == 200
    assert all(repr(path) in line for path, line in zip(pictures, lines, strict=False))
    assert summary.statuses["error"] == summary.codes["damaged"] == 4
    assert sum(summary.statuses.values()) == summary.inputs == summary.predicted == 200
    assert summary.kept == 0
    assert summary.changes == ""


def kill_often(times: int, root: Path, pictures: list[str], unbroken: bytes, folder: Path) -> int:
    """Start and kill a run; at the end it must have what an unbroken one has."""
    output, moments = folder / "results.txt", random.Random(times)
    journal = folder / "results.txt.journal"
    for killed in range(times):
        size = journal.stat().st_size if journal.exists() else 0
        process = start(root, output, Path(pictures[0]).parent, seconds=0.0003 * times)
        # Somewhere: as the process begins, in the middle of its work, or of writing it all down.
        if killed % 4:
            wait_for(journal, size + 1, process)
        time.sleep(moments.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert not output.exists() or output.read_bytes() == unbroken, "never a half file"
    said = finish(start(root, output, Path(pictures[0]).parent))
    assert output.read_bytes() == unbroken
    return int(said.split()[1])


def test_killed_three_times(root: Path, pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    assert kill_often(3, root, pictures, unbroken, tmp_path) >= BATCH_SIZE, "the last run had something to go on from"


@pytest.mark.slow
def test_killed_fifty_times(root: Path, pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    assert kill_often(50, root, pictures, unbroken, tmp_path) >= 25 * BATCH_SIZE


def test_killed_while_the_output_is_written(pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    """All rows are there; nothing is predicted for the second attempt."""
    output = tmp_path / "results.txt"

    def broken(rows: Iterator[Row]) -> None:
        for _ in range(MANY // 2):
            next(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures, invented(), Target(path=output, write=broken), identity=IDENTITY, batch_size=BATCH_SIZE)
    assert not output.exists()
    summary = predict(pictures, output, never)
    assert (summary.kept, summary.predicted, summary.written) == (MANY, 0, True)
    assert output.read_bytes() == unbroken


def never(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
    raise AssertionError("nothing should be predicted")
    yield []


def test_cut_off_anywhere(pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    """As after a power cut: the journal has lost its end, in the middle of a batch or of something else."""
    output, journal = tmp_path / "results.txt", tmp_path / "results.txt.journal"
    predict(pictures, output)
    whole = journal.read_bytes()
    for share in (0.1, 0.5, 0.93):
        journal.write_bytes(whole[: int(len(whole) * share)])
        output.unlink()
        summary = predict(pictures, output)
        assert summary.kept == pytest.approx(share * MANY, abs=0.1 * MANY)
        assert "were not whole and are cut off" in summary.notes[0]
        assert output.read_bytes() == unbroken


def test_a_finished_run_does_nothing(pictures: list[str], tmp_path: Path) -> None:
    output = tmp_path / "results.txt"
    first = predict(pictures[:FEW], output)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    again = predict(pictures[:FEW], output, never)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before
    assert again == replace(first, kept=FEW, predicted=0, written=False)


@pytest.mark.parametrize("what", ["gone", "changed", "beside"])
def test_an_output_that_is_not_as_it_was_is_written_again(what: str, pictures: list[str], tmp_path: Path) -> None:
    output, beside = tmp_path / "results.txt", tmp_path / "beside"
    whole = replace(target(output), beside=(beside,))

    def again() -> bool:
        return run(pictures[:FEW], invented(), whole, identity=IDENTITY, batch_size=BATCH_SIZE).written

    assert again()
    expected = output.read_bytes()
    assert not again()
    if what == "gone":
        output.unlink()
    elif what == "changed":
        output.write_bytes(b"another")
    else:
        beside.write_bytes(b"new")
    assert again()
    assert output.read_bytes() == expected
    assert not again()


def test_changed_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    before = make(folder, 150)
    output, seen = tmp_path / "results.txt", list[str]()
    predict(before, output)
    rows = dict(zip(before, output.read_bytes().splitlines(), strict=True))
    make(folder, 3, prefix="new")
    (folder / "00007.jpg").unlink()
    for name in ("00003.jpg", "00149.jpg"):
        (folder / name).write_bytes(b"other content")
    (folder / "00010.jpg").write_bytes(b"x" * (folder / "00010.jpg").stat().st_size)  # the time alone tells
    after = found(folder)()
    summary = predict(after, output, invented(seen=seen))
    assert summary.changes == "3 new, 1 removed, 3 modified since; the others are kept"
    assert (summary.inputs, summary.kept, summary.predicted) == (152, 146, 6)
    assert [Path(path).name for path in seen] == [
        "00003.jpg",
        "00010.jpg",
        "00149.jpg",
        "new00000.jpg",
        "new00001.jpg",
        "new00002.jpg",
    ]
    lines = dict(zip(after, output.read_bytes().splitlines(), strict=True))
    assert all(lines[path] == rows[path] for path in after if path not in seen)
    assert all(lines[path] != rows.get(path) for path in seen)
    assert predict(after, output, never).changes == ""
    assert predict(after[:100], output, never).changes == "52 removed since; the others are kept"
    assert len(output.read_bytes().splitlines()) == 100
    shuffled = random.Random(0).sample(after, len(after))
    assert predict(shuffled, output, never).written
    assert output.read_bytes().splitlines() == [lines[path] for path in shuffled]


def test_other_options_are_refused(pictures: list[str], tmp_path: Path) -> None:
    output = tmp_path / "results.txt"
    predict(pictures[:FEW], output)
    before = output.read_bytes()
    with pytest.raises(ConfigError, match="top: 2 → 3"):
        predict(pictures[:FEW], output, never, identity={**IDENTITY, "top": 3})
    assert output.read_bytes() == before
    summary = predict(pictures[:FEW], output, identity={**IDENTITY, "top": 3}, restart=True)
    assert (summary.kept, summary.predicted) == (0, FEW)


def test_files_that_could_not_be_opened_are_tried_again(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.jpg") for name in "abcd"]
    Path(paths[0]).write_bytes(b"a")
    Path(paths[2]).mkdir()
    os.symlink(paths[3], paths[3])
    output = tmp_path / "results.txt"
    assert predict(paths, output).codes == {"missing": 1, "unreadable": 2}
    assert not predict(paths, output, never).written, "as long as that is so"
    Path(paths[1]).write_bytes(b"b")
    Path(paths[2]).rmdir()
    Path(paths[2]).write_bytes(b"c")
    seen: list[str] = []
    summary = predict(paths, output, invented(seen=seen))
    assert seen == paths[1:3]
    assert summary.codes == {"unreadable": 1}


def test_an_open_file_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size and time can be had, but not its content: as with permissions, or a bad disk."""
    paths = make(tmp_path / "pictures", 3)
    output = tmp_path / "results.txt"

    def denied(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        for batch in batches:
            yield [Row(path=path, status="error", reason="permission: not allowed", stamp=(1, 1)) for path in batch]

    with monkeypatch.context() as patch:
        patch.setattr("birder.inference.bulk.run.opens", lambda path: False)
        predict(paths, output, denied)
        assert not predict(paths, output, never).written
    assert predict(paths, output).codes == {}


@pytest.mark.parametrize("code", ["damaged", "crashed", "not_finite"])
def test_other_failures_stay_until_the_file_changes(code: str, tmp_path: Path) -> None:
    paths = make(tmp_path / "pictures", 3)
    output = tmp_path / "results.txt"

    def failing(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        for batch in batches:
            yield [Row(path=path, status="error", reason=f"{code}: so it is") for path in batch]

    assert predict(paths, output, failing).codes == {code: 3}
    assert not predict(paths, output, never).written
    Path(paths[1]).write_bytes(b"better")
    assert predict(paths, output).codes == {code: 2}


def test_a_path_that_comes_again_has_the_row_of_the_first(pictures: list[str], tmp_path: Path) -> None:
    """Whether it is far away, in the same block, or known from before a break."""
    paths = [*pictures[:70], pictures[69], pictures[3], *pictures[60:500], pictures[3]]
    output, journal = tmp_path / "results.txt", tmp_path / "results.txt.journal"
    seen: list[str] = []
    summary = predict(paths, output, invented(seen=seen))
    assert sorted(seen) == pictures[:500]
    assert summary.predicted == summary.inputs == len(paths)
    expected = output.read_bytes()
    lines = expected.splitlines()
    assert lines[3] == lines[71] == lines[-1]
    whole = journal.read_bytes()
    for share in (0.2, 0.5, 0.9):
        journal.write_bytes(whole[: int(len(whole) * share)])
        predict(paths, output)
        assert output.read_bytes() == expected


def test_a_stream_that_reads_in_a_thread(pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    from queue import Queue

    def threaded(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        queue: Queue[list[str] | None] = Queue(4)

        def fill() -> None:
            for batch in batches:
                queue.put(batch)
            queue.put(None)

        thread = Thread(target=fill)
        thread.start()
        yield from invented()(iter(queue.get, None))
        thread.join()

    predict(pictures, tmp_path / "results.txt", threaded)
    assert (tmp_path / "results.txt").read_bytes() == unbroken


def test_parts_are_the_whole(pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    """Each picture is in the batch it would be in anyway, though the answers follow from that."""
    parts = []
    for part in (1, 2, 3):
        output = tmp_path / f"{part}.txt"
        predict(shard(pictures, part, 3), output)
        parts.append(output.read_bytes().splitlines(keepends=True))
    assert b"".join(interleave(parts)) == unbroken


def test_embeddings_come_back_exactly(pictures: list[str], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.txt", tmp_path / "broken.txt"
    predict(pictures[:200], whole, invented(embeddings=True))
    assert b"None" not in whole.read_bytes().splitlines()[0]
    with pytest.raises(StopIteration):
        predict(pictures[:200], broken, invented(embeddings=True), report=stop_at(100))
    summary = predict(pictures[:200], broken, invented(embeddings=True))
    assert summary.kept >= 100
    assert broken.read_bytes() == whole.read_bytes()


def stop_at(count: int) -> Any:
    def report(rows: object, done: int) -> None:
        if done >= count:
            raise StopIteration

    return report


def test_a_run_that_is_broken_off_closes_its_stream(pictures: list[str], tmp_path: Path) -> None:
    """Or its processes would live as long as the error does."""
    closed: list[bool] = []

    def stream(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        try:
            yield from invented()(batches)
        finally:
            closed.append(True)

    with pytest.raises(StopIteration) as caught:
        predict(pictures, tmp_path / "results.txt", stream, report=stop_at(10))
    assert closed
    del caught


def test_two_at_once(root: Path, pictures: list[str], unbroken: bytes, tmp_path: Path) -> None:
    output = tmp_path / "results.txt"
    with locked(target(output)):
        process = start(root, output, Path(pictures[0]).parent)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert not output.exists()
    assert said == f"another process writes {output}: wait for it, or name another --output\n"
    predict(pictures, output)
    assert output.read_bytes() == unbroken


def test_no_torch_is_needed(root: Path) -> None:
    """A finished run says so in the time it takes to look at its inputs."""
    code = "import sys, birder.inference.bulk.watch; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_inputs_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    paths = make(folder, 100)
    os.mkdir(folder / "a.jpg")
    before = hashes(folder)
    folder.chmod(0o555)
    try:
        predict([*paths, str(folder / "a.jpg"), str(folder / "no.jpg")], tmp_path / "results.txt")
    finally:
        folder.chmod(0o755)
    assert hashes(folder) == before


def hashes(folder: Path) -> dict[Path, tuple[str, int]]:
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("no disk can be made here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk(pictures: list[str], unbroken: bytes, small_disk: Path) -> None:
    """First there is no room for all of the journal, then none for the output."""
    output, journal = small_disk / "results.txt", small_disk / "results.txt.journal"
    with pytest.raises(ConfigError) as caught:
        predict(pictures, output)
    said = "No space left on device. What is in it is kept: free some space and run the same command"
    assert str(caught.value).startswith(f"{journal} could not be written: {said}")
    size = journal.stat().st_size
    assert 0 < size <= 64 * 1024
    assert not output.exists()

    enlarge(small_disk, 300)
    with pytest.raises(ConfigError) as caught:
        predict(pictures, output)
    said = f"{output} could not be written: No space left on device. All rows are kept in {journal}"
    assert said in str(caught.value)
    assert journal.stat().st_size > size
    assert {path.name for path in small_disk.iterdir()} == {journal.name, f".{output.name}.lock"}, "no half output"

    enlarge(small_disk, 4096)
    summary = predict(pictures, output, never)
    assert (summary.kept, summary.notes) == (MANY, ())
    assert output.read_bytes() == unbroken


def enlarge(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", disk], check=True)
