"""Watching a folder: files that arrive, also half of them, until it is ended."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from birder.inference.bulk import watch as module
from birder.inference.bulk.run import Summary
from birder.inference.bulk.watch import watch
from tests.inference.bulk.broken_off import BATCH_SIZE, IDENTITY, found, invented, predict, target
from tests.inference.bulk.test_run import finish, make, start

LONG_AGO = (0, 1_700_000_000_000_000_000)


def look(folder: Path, output: Path, steps: list[Callable[[], object]]) -> tuple[list[Summary], list[str]]:
    """Watch, without waiting, and do one of the steps between two looks. What each came to, and which were read."""
    summaries: list[Summary] = []
    seen: list[str] = []
    left = list(steps)

    def finished(summary: Summary) -> None:
        summaries.append(summary)
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    watch(
        found(folder),
        invented(seen=seen),
        target(output),
        identity=IDENTITY,
        batch_size=BATCH_SIZE,
        interval_s=0.0,
        finished=finished,
    )
    return summaries, [Path(path).name for path in seen]


def test_what_arrives_is_read_and_nothing_else(tmp_path: Path) -> None:
    folder, output = tmp_path / "pictures", tmp_path / "results.txt"
    make(folder, 100)
    written: list[int] = []

    def note() -> None:
        written.append(output.stat().st_mtime_ns)

    def new() -> None:
        note()
        make(folder, 2, prefix="new")

    def better() -> None:
        note()
        (folder / "00049.jpg").write_bytes(b"no longer bad")
        os.utime(folder / "00049.jpg", ns=LONG_AGO)

    summaries, seen = look(folder, output, [note, new, better, lambda: (folder / "00001.jpg").unlink()])
    assert [(summary.inputs, summary.predicted, summary.written) for summary in summaries] == [
        (100, 100, True),
        (100, 0, False),
        (102, 2, True),
        (102, 1, True),
        (101, 0, True),
    ]
    assert [summary.changes.partition(" since")[0] for summary in summaries] == [
        "",
        "",
        "2 new",
        "1 modified",
        "1 removed",
    ]
    assert seen[100:] == ["new00000.jpg", "new00001.jpg", "00049.jpg"]
    assert written[0] == written[1] != written[2]
    assert [summary.codes.get("damaged", 0) for summary in summaries] == [2, 2, 2, 1, 1]
    assert len(output.read_bytes().splitlines()) == 101
    assert not predict(found(folder)(), output).written, "a run goes on where the watch ended"


def test_a_file_that_is_being_written_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = tmp_path / "pictures", tmp_path / "results.txt"
    make(folder, 3)
    arriving = folder / "arriving.jpg"
    clock = [time.time()]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("birder.inference.bulk.journal.time.monotonic", lambda: clock[0])

    def grow() -> None:
        clock[0] += 1.9
        with open(arriving, "ab") as file:
            file.write(b"piece")
        os.utime(arriving, (clock[0], clock[0]))

    def wait(seconds: float) -> Callable[[], None]:
        def step() -> None:
            clock[0] += seconds

        return step

    summaries, seen = look(folder, output, [grow, grow, grow, wait(1.0), wait(1.1), wait(10)])
    assert [summary.inputs for summary in summaries] == [3, 3, 3, 3, 3, 4, 4]
    assert [summary.written for summary in summaries] == [True, False, False, False, False, True, False]
    assert seen.count("arriving.jpg") == 1


def test_a_file_from_the_future_is_read_when_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a camera, or of another machine; and when it is known, it is so at the first look."""
    folder, output = tmp_path / "pictures", tmp_path / "results.txt"
    make(folder, 1)
    file = folder / "future.jpg"
    file.write_bytes(b"later")
    later = time.time() + 1e6
    os.utime(file, (later, later))
    monkeypatch.setattr(module, "REST_S", 0.05)
    summaries, _ = look(folder, output, [lambda: time.sleep(0.06)])
    assert [summary.inputs for summary in summaries] == [1, 2]
    summaries, seen = look(folder, output, [])
    assert [(summary.inputs, summary.written) for summary in summaries] == [(2, False)]
    assert seen == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_watching_as_a_process(number: signal.Signals, root: Path, tmp_path: Path) -> None:
    """Files are moved in, written in pieces, replaced; at the end the rows are those of what lies there."""
    folder, output = tmp_path / "pictures", tmp_path / "results.txt"
    make(folder, 10)
    process = start(root, output, folder, "watch")
    try:
        wait_for_rows(output, 10, process)
        with open(folder / "slow.jpg", "wb", buffering=0) as file:
            for _ in range(5):
                file.write(b"a piece of it")
                time.sleep(0.1)
        make(folder, 3, prefix="moved")
        wait_for_rows(output, 13, process)
        assert b"slow.jpg" not in output.read_bytes()
        wait_for_rows(output, 14, process)
        (folder / "moved00001.jpg").unlink()
        wait_for_rows(output, 13, process)
        journal = output.with_name("results.txt.journal")
        while journal.stat().st_mtime_ns < output.stat().st_mtime_ns:
            time.sleep(0.01)  # until it is noted that this is written
        assert process.poll() is None
    finally:
        process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    rows = output.read_bytes().splitlines(keepends=True)
    assert [repr(path) in row.decode() for path, row in zip(found(folder)(), rows, strict=True)] == [True] * 13
    assert all(line.split()[1] == "0" or line.split()[2] == "True" for line in said.splitlines())
    assert finish(start(root, output, folder)) == "13 13 0 False\n"


def wait_for_rows(output: Path, count: int, process: "subprocess.Popen[str]") -> None:
    ends = time.monotonic() + 20
    while not (output.exists() and len(output.read_bytes().splitlines()) == count):
        assert process.poll() is None
        assert time.monotonic() < ends, f"there are not {count} rows"
        time.sleep(0.01)


def test_ended_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    """What was there before stays, and what is in the journal is not lost."""
    folder, output = tmp_path / "pictures", tmp_path / "results.txt"
    make(folder, 100)

    def report(rows: object, done: int) -> None:
        if done > 30:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    watch(found(folder), invented(), target(output), identity=IDENTITY, batch_size=BATCH_SIZE, report=report)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not output.exists()
    assert predict(found(folder)(), output).kept == 35


def test_in_a_thread_signals_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    make(folder, 3)
    came: list[object] = []
    thread = threading.Thread(target=lambda: came.extend(look(folder, tmp_path / "results.txt", [])))
    thread.start()
    thread.join()
    assert came
