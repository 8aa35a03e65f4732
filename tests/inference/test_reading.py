"""Processes that read pictures: all rows are there, in order and the same, whatever becomes of the processes.

The decoders that crash and hang are real ones: a plug-in for Pillow that the processes, not this one, load from a
folder where Python looks for modules.
"""

import gc
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from birder.data.fitting import Fit
from birder.data.images import read_image, read_photo
from birder.errors import ConfigError, DataError
from birder.inference import reading
from birder.inference.reader import Read, Request, decoded
from birder.inference.reading import Readers
from tests.decoders import add_decoders, eventually

FIT = Fit((24, 32))


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    add_decoders(folder)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Forty JPEGs, PNGs and files that are none."""
    folder, numbers = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for index in range(40):
        height, width = numbers.integers(20, 200, 2)
        path = folder / f"{index}.{'jpg' if index % 3 else 'png'}"
        Image.fromarray(numbers.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        if index % 7 == 0:
            path.write_bytes(path.read_bytes()[: 600 if index % 2 else 0])
        paths.append(str(path))
    return [*paths, str(folder), str(folder / "there is none"), "", "nu\0ll", "sur\ud800rogate", "long" * 5000]


def in_batches(paths: list[str], size: int) -> list[list[str]]:
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def flat(batches: Iterator[list[Read]]) -> list[Read]:
    return [read for batch in batches for read in batch]


def same(ours: list[Read], theirs: list[Read]) -> bool:
    return len(ours) == len(theirs) and all(
        one.path == other.path and one[2:] == other[2:] and np.array_equal(one.pixels, other.pixels)
        for one, other in zip(ours, theirs, strict=True)
    )


def write(folder: Path, word: str) -> str:
    path = folder / f"{word.split()[0]}.jpg"
    path.write_text(word)
    return str(path)


def children(pid: int | None = None) -> list[int]:
    """Processes that read for this one or another, from the system."""
    found = []
    for tasks in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        found += [int(word) for word in tasks.read_text().split()]
    return [pid for pid in found if b"birder.inference.reader" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(workers: int, pictures: list[str]) -> None:
    for fit, exact in [(FIT, False), (Fit((16, 16), 0.8, simple_crop=True), True)]:
        with Readers(0) as here, Readers(workers) as readers:
            expected = list(here.read(in_batches(pictures, 7), fit, exact=exact, truncated=exact))
            batches = list(readers.read(in_batches(pictures, 7), fit, exact=exact, truncated=exact))
        assert [len(batch) for batch in batches] == [7] * 6 + [4]
        assert [read.path for batch in batches for read in batch] == pictures
        assert same(flat(iter(batches)), flat(iter(expected)))
        good = [read for batch in batches for read in batch if read.pixels is not None]
        assert len(good) >= 34
        assert all(read.pixels is not None and read.pixels.shape == (*fit.size, 3) for read in good)
        assert all(read.stamp == (os.stat(read.path).st_size, os.stat(read.path).st_mtime_ns) for read in good)


def test_a_request_comes_back_from_its_line() -> None:
    for path in ("a b", "Ä\U0001f426\n", "\udcff\ud800", "nu\0ll"):
        request = Request(path, Fit((3, 5), 0.75, True), True, False)
        line = request.encoded()
        assert line.count(b"\n") == 1
        assert decoded(line, io.BytesIO()) == request
        sent = request._replace(content=b"first\nsecond")
        assert decoded(sent.encoded(), io.BytesIO(b"first\nsecond, and the next")) == sent


def test_a_lane_that_cannot_start_leaves_the_work_to_others_and_comes_back(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AGAIN_S", 0.5)
    monkeypatch.setattr(reading, "_STARTS", 1)
    content = Path(pictures[1]).read_bytes()
    start = reading._popen

    def fail(timeout: float) -> Any:
        raise OSError(24, "Too many open files")

    with Readers(2) as readers:
        assert readers.submit(Request("", FIT, content=content)).result().pixels is not None
        assert eventually(lambda: len(children()) == 2)
        monkeypatch.setattr(reading, "_popen", fail)
        crash = readers.submit(Request("", FIT, content=b"EXIT"))  # this lane dies, and cannot start again
        with pytest.raises(DataError, match="does not start"):
            crash.result()
        results = [readers.submit(Request("", FIT, content=content)) for _ in range(20)]
        assert all(result.result().pixels is not None for result in results)
        assert readers.working
        with pytest.raises(DataError, match="does not start"):
            readers.submit(Request("", FIT, content=b"EXIT")).result()
        assert eventually(lambda: not readers.working)
        with pytest.raises(DataError, match="does not start"):  # nobody is left, and nobody waits in vain
            readers.submit(Request("", FIT, content=content)).result()
        monkeypatch.setattr(reading, "_popen", start)
        assert eventually(lambda: readers.working and len(children()) == 2)
        assert readers.submit(Request("", FIT, content=content)).result().pixels is not None


def test_content_that_hangs_is_tried_once() -> None:
    """Who sent it waits, and so do those behind it."""
    with Readers(1, timeout=1.0) as readers:
        began = time.monotonic()
        read = readers.submit(Request("", FIT, content=b"HANG")).result()
        assert read.reason == "timeout: not read within 1 s"
        assert time.monotonic() - began < 1.9


def test_files_are_read_as_asked(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(whole)
    cut.write_bytes(whole.read_bytes()[:-9000])
    with Readers(1) as readers:
        ((exact, refused),) = readers.read([[str(whole), str(cut)]], FIT, exact=True)
        ((reduced, partial),) = readers.read([[str(whole), str(cut)]], FIT, truncated=True)
    assert np.array_equal(exact.pixels, FIT(read_image(whole)))
    assert np.array_equal(reduced.pixels, FIT(read_photo(whole, cover=FIT.cover).image))
    assert not np.array_equal(exact.pixels, reduced.pixels)
    assert refused.pixels is None and partial.pixels is not None
    assert refused.reason.startswith("truncated: ") and partial.reason.startswith("truncated: ")


def test_a_bad_file_keeps_its_stamp(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    for workers in (0, 1):
        with Readers(workers) as readers:
            (read,) = flat(readers.read([[str(bad)]], FIT))
        assert read == Read(str(bad), None, "not_an_image: not a picture", stamp=(10, bad.stat().st_mtime_ns))


def test_content_is_read_as_the_file_is(tmp_path: Path) -> None:
    """Also where it is far more than a pipe holds, and so are the pixels that come back."""
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    turned = Image.Exif()
    turned[0x0112], turned[0x0132] = 6, "2026:05:17 06:12:44"
    Image.fromarray(noise[:300]).save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    fit = Fit((1300, 1100))
    for workers in (0, 1, 2):
        with Readers(workers) as readers:
            asked = [(path, fit) for _ in range(4) for path in sorted(tmp_path.glob("*.*g"))]
            given = [readers.submit(Request("", fit, content=path.read_bytes())) for path, fit in asked]
            expected = flat(readers.read([[str(path)] for path, _ in asked], fit))
            for result, read in zip(given, expected, strict=True):
                assert same([result.result()], [read._replace(path="", stamp=(0, 0))])
    assert [read.size for read in expected[:3]] == [(0, 0), (1000, 1500), (300, 1000)]
    assert expected[2].taken == "2026-05-17T06:12:44"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("SEGFAULT", "crashed: the decoder died at this file (signal 11)"),
        ("EXIT", "crashed: the decoder died at this file (exit code 3)"),
        ("HANG", "timeout: not read within 0.5 s"),
        ("NOISE", ""),
    ],
)
def test_a_decoder_takes_one_file_with_it(word: str, reason: str, tmp_path: Path, pictures: list[str]) -> None:
    bad = write(tmp_path, word)
    paths = [*pictures[:11], bad, *pictures[11:20]]
    with Readers(0) as here, Readers(2, timeout=0.5 if word == "HANG" else 30.0) as readers:
        reads = flat(readers.read(in_batches(paths, 4), FIT))
        assert same([*reads[:11], *reads[12:]], flat(here.read([pictures[:20]], FIT)))
    assert (reads[11].path, reads[11].reason) == (bad, reason)
    assert (reads[11].pixels is None) == bool(reason)


def test_a_file_is_tried_twice(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"ONCE {tmp_path / 'marker'}")]
    with Readers(1) as readers:
        (read,) = flat(readers.read([paths], FIT))
    assert (tmp_path / "marker").exists()
    assert read.reason == "" and read.pixels is not None and read.pixels[0, 0].tolist() == [255, 0, 0]


def test_a_monster_is_a_row(tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monster = tmp_path / "monster.png"
    Image.new("1", (12000, 12000)).save(monster)  # 600 megabytes as RGB
    monkeypatch.setattr(reading, "MEMORY", 300 << 20)
    with Readers(1) as readers:
        bad, good = flat(readers.read([[str(monster), pictures[1]]], FIT, exact=True))
    assert bad.reason == "memory: not enough memory to read it"
    assert good.reason == ""


def test_the_limit_on_pixels_is_that_of_this_process(pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for workers in (0, 1):
        with Readers(workers) as readers:
            (read,) = flat(readers.read([[pictures[1]]], FIT))
        assert read.reason.startswith("too_large: ")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_from_outside_at_random_moments(seed: int, pictures: list[str]) -> None:
    moments, paths = random.Random(seed), pictures[:40] * (6 if seed == 0 else 40)
    with Readers(0) as here, Readers(2) as readers:
        reads, killed = [], 0
        for number, batch in enumerate(readers.read(in_batches(paths, 5), FIT)):
            reads += batch
            if number % 12 == 5:  # so far apart that no file is hit twice
                time.sleep(moments.uniform(0, 0.01))
                victim = moments.choice(children())
                os.kill(victim, signal.SIGKILL)
                killed += 1
        assert killed >= 4
        assert same(reads, flat(here.read([pictures[:40]], FIT)) * (len(paths) // 40))


def test_files_are_asked_for_as_needed(pictures: list[str]) -> None:
    taken = itertools.count()
    endless = ([pictures[next(taken) % 40]] * 3 for _ in itertools.count())
    with Readers(2) as readers:
        stream = readers.read(endless, FIT)
        assert next(taken) == 0
        for number in range(1, 20):
            assert [read.path for read in next(stream)] == [pictures[number % 40]] * 3
        time.sleep(0.3)
        assert next(taken) - 20 <= 2 * reading._AHEAD_FILES / 3 + 1
        stream.close()


def test_a_slow_file_holds_up_no_other(tmp_path: Path, pictures: list[str]) -> None:
    """While one process is at it, the other reads what is ahead, of which the last ends its waiting."""
    slow, last = (write(tmp_path, f"{word} {tmp_path / 'marker'}") for word in ("WAIT", "NOTE"))
    paths = [slow, *pictures[1:20], last]
    with Readers(2) as readers:
        reads = flat(readers.read([[path] for path in paths], FIT))
    assert [read.path for read in reads] == paths
    assert reads[0].reason == ""


def test_what_is_not_wanted_any_more_is_not_read(tmp_path: Path, pictures: list[str]) -> None:
    marker, notes = tmp_path / "marker", tmp_path / "notes"
    slow, noted = write(tmp_path, f"WAIT {marker}"), write(tmp_path, f"NOTE {notes}")
    with Readers(1) as readers:
        stream = readers.read([[pictures[1]], [slow], *([noted] for _ in range(10))], FIT)
        next(stream)
        stream.close()
        marker.touch()
        assert flat(readers.read([[pictures[1]]], FIT))[0].pixels is not None
        assert not notes.exists() or notes.stat().st_size < 2  # files in hand


def test_signals_are_left_to_the_main_process(pictures: list[str]) -> None:
    """Those of a terminal and of a job. When memory runs out, it is the reader's turn."""
    with Readers(1) as readers:
        (expected,) = flat(readers.read([[pictures[1]]], FIT))
        (pid,) = children()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(pid, number)
        assert same(flat(readers.read([[pictures[1]]], FIT)), [expected])
        assert children() == [pid]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
        assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()
        os.kill(pid, signal.SIGKILL)  # while it has nothing to do
        assert same(flat(readers.read([[pictures[1]]], FIT)), [expected])
        assert children() != [pid]


def test_several_threads_use_the_same_processes(pictures: list[str]) -> None:
    with Readers(0) as here, Readers(2) as readers:
        expected = flat(here.read([pictures], FIT))
        right = []

        def use() -> None:
            right.append(same(flat(readers.read(in_batches(pictures, 6), FIT)), expected))

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert right == [True] * 3


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_is_left(rounds: int, pictures: list[str]) -> None:
    """Neither of what was read to the end, nor left early, nor forgotten, nor broken off by an error."""

    def left() -> tuple[int, int, int]:
        threads = sum(thread.name == "birder-reader" for thread in threading.enumerate())  # others may end meanwhile
        return len(os.listdir("/proc/self/fd")), threads, len(children())

    def troubled() -> Iterator[list[str]]:
        yield pictures[:3]
        raise KeyboardInterrupt

    before = left()
    for number in range(rounds):
        readers = Readers(2)
        if number % 4 == 0:
            assert len(flat(readers.read([pictures[:9]], FIT))) == 9
        elif number % 4 == 1:
            next(readers.read(itertools.repeat(pictures[:9]), FIT))
        elif number % 4 == 2:
            with pytest.raises(KeyboardInterrupt):
                list(readers.read(troubled(), FIT))
        if number % 2:
            readers.close()
            readers.close()
        del readers
        gc.collect()
        # Files of other tests may be closed meanwhile, so there may be fewer.
        assert all(now <= then for now, then in zip(left(), before, strict=True)), (left(), before)


def test_closed_readers_say_so(tmp_path: Path, pictures: list[str]) -> None:
    readers = Readers(1)
    stream = readers.read(itertools.repeat([write(tmp_path, "HANG")]), FIT)
    threading.Timer(0.8, readers.close).start()
    with pytest.raises(DataError, match="closed"):
        next(stream)
    with pytest.raises(DataError, match="closed"):
        readers.read([pictures], FIT)


def test_processes_that_do_not_start(tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules" / "PIL").mkdir()
    (tmp_path / "modules" / "PIL" / "__init__.py").write_text("raise ImportError('half an installation')")
    with Readers(1) as readers:
        for _ in range(2):
            with pytest.raises(DataError, match=r"(?s)does not start.*workers=0.*ImportError: half an installation"):
                list(readers.read([pictures], FIT))


def test_what_lies_in_the_current_folder_is_not_run(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('a script of the user')")
    monkeypatch.chdir(tmp_path)
    with Readers(1) as readers:
        assert flat(readers.read([[pictures[1]]], FIT))[0].pixels is not None
        folder = Path(pictures[1]).parent
        monkeypatch.chdir(folder)  # relative paths are those of now
        assert flat(readers.read([[Path(pictures[1]).name]], FIT))[0].pixels is not None


SCRIPT = """
import itertools, sys, time
from birder.data.fitting import Fit
from birder.inference.reading import Readers
readers = Readers(2, timeout=1.5)  # in the open, with nothing that keeps a second run of this from starting a third
for reads in readers.read(itertools.repeat(sys.argv[1:]), Fit((24, 32))):
    print(len(reads), flush=True)
    time.sleep(0.05)
"""


def started(script: str, *words: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # which is ignored in the background of a script
    )


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("word", ["good", "HANG"])
def test_no_process_outlives_the_main_one(word: str, tmp_path: Path, pictures: list[str]) -> None:
    with started(SCRIPT, pictures[1] if word == "good" else write(tmp_path, word)) as main:
        assert eventually(lambda: len(children(main.pid)) == 2)
        if word == "good":
            assert main.stdout is not None and main.stdout.readline() == "1\n"
        pids = children(main.pid)
        main.kill()
        assert eventually(lambda: not any(map(running, pids)), seconds=2 if word == "good" else 6)


def test_ctrl_c_of_the_whole_group(pictures: list[str]) -> None:
    with started(SCRIPT, pictures[1]) as main:
        assert main.stdout is not None and main.stdout.readline() == "1\n"
        pids = children(main.pid)
        assert len(pids) == 2
        os.killpg(main.pid, signal.SIGINT)
        _, said = main.communicate(timeout=20)
        assert said.endswith("KeyboardInterrupt\n") and said.count("Traceback") == 1 and "Warning" not in said
        assert eventually(lambda: not any(map(running, pids)), seconds=2)


def test_it_ends_with_the_script_although_nothing_is_closed(pictures: list[str]) -> None:
    script = SCRIPT.replace("    time.sleep(0.05)\n", "    break\n")
    with started(script, pictures[1]) as main:
        assert main.communicate(timeout=20) == ("1\n", "")
        assert main.returncode == 0


def test_readers_need_no_torch(root: Path) -> None:
    script = "import sys, birder.inference.reader, birder.inference.reading; print('torch' in sys.modules)"
    with started(script) as main:
        assert main.communicate(timeout=20)[0] == "False\n"


@pytest.mark.parametrize(("workers", "timeout"), [(-1, 30.0), (1, 0.0), (1, float("nan"))])
def test_numbers_that_make_no_sense(workers: int, timeout: float) -> None:
    with pytest.raises(ConfigError, match="workers must be 0 or more and timeout above 0"):
        Readers(workers, timeout=timeout)
