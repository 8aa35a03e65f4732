"""What is known of the runs in a folder, whatever state their files are in."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from birder.training.recipe import Recipe, write_recipe
from birder.training.runs import LOCK, METRICS, RECIPE, entries, find_runs, is_locked, summary_of

HOLD = (
    "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


def a_run(path: Path, epochs: int = 3, done: int = 2, written: float = 1e9) -> Path:
    """A run of some epochs, validated to 0.5, 0.7, 0.6 …, last written at a time."""
    path.mkdir(parents=True)
    write_recipe(path / RECIPE, Recipe(data="birds", network="vit_t16", epochs=epochs))
    lines = [{"kind": "start", "step": 0}, {"kind": "steps", "step": 5, "loss": 9.0}]
    for number, accuracy in zip(range(1, done + 1), (0.5, 0.7, 0.6), strict=False):
        lines.append({"kind": "epoch", "step": 9, "epoch": number, "loss": 2 / number, "val_top1": accuracy})
    (path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(path / METRICS, (written, written))
    return path


@contextmanager
def trained_in(path: Path) -> Iterator[None]:
    """Another process holds the folder, as one that trains in it does."""
    command = [sys.executable, "-c", HOLD, str(path / LOCK)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("")


def test_what_is_known(tmp_path: Path) -> None:
    run = summary_of(a_run(tmp_path / "run", epochs=4, done=3))
    assert run is not None
    assert (run.path, run.recipe.network, run.recipe.epochs) == (tmp_path / "run", "vit_t16", 4)
    assert (run.epoch, run.best, run.loss, run.state) == (3, 0.7, 2 / 3, "stopped")
    assert run.written == datetime.fromtimestamp(1e9)


def test_finished_begun_and_without_validation(tmp_path: Path) -> None:
    finished = summary_of(a_run(tmp_path / "finished", epochs=2))
    begun = summary_of(a_run(tmp_path / "begun", done=0))
    assert finished is not None and begun is not None
    assert (finished.state, finished.epoch) == ("finished", 2)
    assert (begun.state, begun.epoch, begun.best, begun.loss) == ("stopped", 0, None, None)

    path = a_run(tmp_path / "plain", done=0)
    (path / METRICS).write_text('{"kind": "epoch", "step": 9, "epoch": 1, "loss": 2.5}\n')
    plain = summary_of(path)
    assert plain is not None
    assert (plain.epoch, plain.best, plain.loss) == (1, None, 2.5)


def test_a_run_is_running_as_long_as_a_process_holds_it(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run")
    assert not is_locked(path)
    with trained_in(path):
        assert is_locked(path)
        assert [run.state for run in find_runs(tmp_path)] == ["running"]
    assert (path / LOCK).exists(), "it stays, and says nothing"
    assert not is_locked(path)
    assert [run.state for run in find_runs(tmp_path)] == ["stopped"]


def test_looking_does_not_disturb(tmp_path: Path) -> None:
    """Nothing is written, and the next may have the folder at once."""
    path = a_run(tmp_path / "run")
    (path / LOCK).touch()
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert not is_locked(path) and not is_locked(path)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    with trained_in(path):
        assert is_locked(path)


def test_a_folder_that_can_only_be_read_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is mounted for reading, or runs of somebody else: nobody can hold their lock from here."""
    path = a_run(tmp_path / "run")
    (path / LOCK).touch()

    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert not is_locked(path)


def test_runs_are_found_at_any_depth_newest_last(tmp_path: Path) -> None:
    for name, written in (("b", 2e9), ("deep/er/c", 1.5e9), ("a", 1e9)):
        a_run(tmp_path / name, written=written)
    (tmp_path / "file.txt").write_text("no run")
    assert [run.path.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)] == ["a", "deep/er/c", "b"]
    assert [run.path for run in find_runs(tmp_path / "deep" / "er" / "c")] == [tmp_path / "deep" / "er" / "c"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert find_runs(tmp_path) == find_runs(tmp_path / "gone") == []
    assert summary_of(tmp_path) is None
    assert entries(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"epochs = 3", b"data =", b"\xff\xfe", b'data = "x"\nepochz = 3'])
def test_a_damaged_recipe_is_no_run_unless_it_still_is_one(tmp_path: Path, content: bytes) -> None:
    (a_run(tmp_path / "damaged") / RECIPE).write_bytes(content)
    a_run(tmp_path / "whole")
    assert [run.path.name for run in find_runs(tmp_path)] == ["whole"]


def test_without_metrics_there_is_nothing_to_say(tmp_path: Path) -> None:
    (a_run(tmp_path / "run") / METRICS).unlink()
    assert find_runs(tmp_path) == []


GOOD = b'{"kind": "epoch", "step": 3, "epoch": 1, "loss": 2.0, "val_top1": 0.25}\n'


@pytest.mark.parametrize(
    "damage",
    [
        b'{"kind": "epoch", "step": 6, "ep',
        b"\x00\x00\x00\n",
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b"3\nnull\n",
        b"{}\n",
        b'{"kind": "epoch", "step": 6}\n',
        b'{"kind": "epoch", "epoch": "two", "loss": 1.0}\n',
        b'{"kind": "epoch", "epoch": null, "val_top1": 1.0}\n',
        b'{"kind": "epoch", "epoch": NaN, "val_top1": 1.0}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_damaged_metrics_cost_their_line(tmp_path: Path, damage: bytes) -> None:
    path = a_run(tmp_path / "run")
    for content in (GOOD + damage, damage + b"\n" + GOOD):
        (path / METRICS).write_bytes(content)
        run = summary_of(path)
        assert run is not None
        assert (run.epoch, run.best, run.loss) == (1, 0.25, 2.0)


def test_numbers_that_are_none_are_none(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run")
    (path / METRICS).write_bytes(GOOD + b'{"kind": "epoch", "epoch": 2, "loss": "low", "val_top1": NaN}\n')
    run = summary_of(path)
    assert run is not None
    assert (run.epoch, run.best, run.loss) == (2, 0.25, None)
