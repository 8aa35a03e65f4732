"""Means, metrics on disk, and the bar on a terminal that is only pretended."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from birder.errors import MissingPackage
from birder.training import logbook
from birder.training.logbook import Logbook, Means

SPEED = {"lr": 1e-3, "images_per_s": 123.4, "data_wait": 0.25, "memory_mib": 1536.0, "seconds": 9.0}


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logbook, "time", clock)
    return clock


def means_of(**values: float) -> Means:
    means = Means()
    means.add({name: torch.tensor(value) for name, value in values.items()})
    return means


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(force_terminal=True, file=file, width=160, color_system=None, legacy_windows=False), file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_means_are_those_of_numpy(dtype: torch.dtype) -> None:
    values = torch.rand(1000, 2).to(dtype)
    means = Means()
    for loss, accuracy in values:
        means.add({"loss": loss, "accuracy": accuracy})
    result = means.result()
    expected = values.double().numpy().mean(axis=0)
    assert list(result) == ["loss", "accuracy"]
    assert all(type(value) is float for value in result.values())
    np.testing.assert_allclose(list(result.values()), expected, rtol=1e-5)


def test_a_value_that_is_not_always_there_is_averaged_over_the_steps_that_had_it() -> None:
    means = means_of(loss=1.0, mixed=4.0)
    means.add({"loss": torch.tensor(3.0)})
    assert means.result() == {"loss": 2.0, "mixed": 4.0}


def test_adding_leaves_the_step_s_own_numbers_alone() -> None:
    value = torch.tensor(1.0)
    means = Means()
    means.add({"loss": value})
    means.add({"loss": value})
    assert value == 1.0
    assert means.result() == {"loss": 1.0}
    assert Means().result() == {}


def test_steps_weigh_as_many_as_they_have_pictures() -> None:
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({"loss": torch.tensor(5.0)}, 1)
    assert means.result() == means.over_processes() == {"loss": 2.0}
    assert means.pictures == 4
    other = Means()
    other.load_state_dict(means.state_dict())
    other.add({"loss": torch.tensor(2.0)}, 4)
    assert (other.result(), other.pictures) == ({"loss": 2.0}, 8)
    assert Means().over_processes() == {}


def drawn(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = Logbook(tmp_path / "metrics.jsonl", tensorboard=True)
    log.write("start", 0, species=3)
    log.write("epoch", 9, loss=0.25, name="text")
    log.write("epoch", 18, loss=0.125)
    assert drawn(tmp_path) == {"epoch/loss": [(9, 0.25), (18, 0.125)]}


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [(10, 1.0), (20, 9.0)]), (0, [(10, 8.0), (20, 9.0)])],
    ids=["the epoch was over", "the epoch is validated again"],
)
def test_tensorboard_shows_each_point_once_when_a_run_goes_on(
    epochs: int, expected: list[tuple[int, float]], tmp_path: Path
) -> None:
    """It was killed at step 19, or as it ended the epoch, and goes on at step 10; what it wrote since is done again."""
    pytest.importorskip("tensorboard")
    log = Logbook(tmp_path / "metrics.jsonl", tensorboard=True)
    log.rewind(0, 0)
    for step, loss in ((5, 1.5), (10, 1.0), (15, 0.5)):
        log.write("steps", step, loss=loss)
        if step == 10:
            log.write("epoch", step, epoch=1, loss=loss)
    log = Logbook(tmp_path / "metrics.jsonl", tensorboard=True)
    log.rewind(10, epochs)
    if epochs == 0:
        log.write("epoch", 10, epoch=1, loss=8.0)
    log.write("steps", 15, loss=0.75)
    log.write("epoch", 20, epoch=2, loss=9.0)
    assert drawn(tmp_path)["steps/loss"] == [(5, 1.5), (10, 1.0), (15, 0.75)]
    assert drawn(tmp_path)["epoch/loss"] == expected


def test_tensorboard_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackage, match=r"run\.tensorboard needs tensorboard: pip install"):
        Logbook(tmp_path / "metrics.jsonl", tensorboard=True)


def test_a_line_is_one_object(tmp_path: Path) -> None:
    log = Logbook(tmp_path / "metrics.jsonl")
    log.write("start", 0, species=3)
    log.write("epoch", 9, loss=0.25, name='Größe 鳥\n\u2028\x85 "quoted"')
    raw = (tmp_path / "metrics.jsonl").read_bytes()
    assert raw.count(b"\n") == 2 and raw.endswith(b"\n")
    assert "Größe 鳥".encode() in raw
    assert records(log.path) == [
        {"kind": "start", "step": 0, "species": 3},
        {"kind": "epoch", "step": 9, "loss": 0.25, "name": 'Größe 鳥\n\u2028\x85 "quoted"'},
    ]


def test_file_names_that_are_no_text_are_written_and_come_back(tmp_path: Path) -> None:
    log = Logbook(tmp_path / "metrics.jsonl")
    log.write("unreadable", 3, path="odd\udcff.jpg")
    log.rewind(4, 0)
    assert records(log.path) == [{"kind": "unreadable", "step": 3, "path": "odd\udcff.jpg"}]


def test_rewind_forgets_what_came_after(tmp_path: Path) -> None:
    log = Logbook(tmp_path / "metrics.jsonl")
    for epoch in range(1, 5):
        log.write("epoch", 5 * epoch, epoch=epoch, path="a\u2028b\x85c")
    with log.path.open("a") as file:
        file.write('{"kind": "epoch", "st')
    log.rewind(15, 3)
    assert [line["step"] for line in records(log.path)] == [5, 10, 15]
    assert {line["path"] for line in records(log.path)} == {"a\u2028b\x85c"}
    log.write("epoch", 20, epoch=4)
    assert [line["epoch"] for line in records(log.path)] == [1, 2, 3, 4]
    before = log.path.read_bytes()
    log.rewind(20, 4)
    assert log.path.read_bytes() == before


def test_rewind_keeps_what_lies_before(tmp_path: Path) -> None:
    """Lines of several steps have the number of the step behind them; others that of the step they belong to."""
    log = Logbook(tmp_path / "metrics.jsonl")
    for kind, step in (("start", 0), ("unreadable", 8), ("steps", 9), ("unreadable", 9), ("steps", 10)):
        log.write(kind, step)
    log.write("epoch", 9, epoch=1)
    log.rewind(9, 0)  # the steps of the epoch are done, but it was not validated yet
    kept = [("start", 0), ("unreadable", 8), ("steps", 9)]
    assert [(line["kind"], line["step"]) for line in records(log.path)] == kept
    log.rewind(0, 0)
    assert records(log.path) == []


def test_rewind_of_nothing(tmp_path: Path) -> None:
    Logbook(tmp_path / "metrics.jsonl").rewind(0, 0)
    assert list(tmp_path.iterdir()) == []


def test_lines_are_plain_and_not_wrapped(tmp_path: Path) -> None:
    file = io.StringIO()
    text = "left out photos/[bold]wren[/bold].jpg: " + "word " * 30
    Logbook(tmp_path / "m", Console(file=file, width=40)).say(text)
    assert file.getvalue() == text + "\n"


def test_the_bar_shows_speed_loss_accuracy_and_time_left(tmp_path: Path, clock: Clock) -> None:
    console, file = terminal()
    log = Logbook(tmp_path / "m", console)
    with log.progress(100, 20):
        assert log._progress is not None
        for step in (30, 40, 50):
            clock.now += 1
            log.show(step, "2/5", means_of(loss=1.25, accuracy=0.5, other=7.0), SPEED)
        log._progress.refresh()
        shown = file.getvalue()
        (task,) = log._progress.tasks
        assert (task.completed, task.total) == (50, 100)
    assert "epoch 2/5" in shown
    assert "loss 1.250 · accuracy 50.0% · rate 1.0e-03 · 123 images/s · waiting 25% · 1.5 GiB" in shown
    assert re.search(r"GiB \d:\d\d:\d\d", shown)
    assert "other" not in shown


def test_accuracy_is_left_out_where_there_is_none(tmp_path: Path, clock: Clock) -> None:
    console, file = terminal()
    log = Logbook(tmp_path / "m", console)
    with log.progress(10, 0):
        log.show(5, "1/1", means_of(loss=0.5), SPEED)
    assert "loss 0.500 · rate" in file.getvalue()
    assert "accuracy" not in file.getvalue()


def test_the_bar_moves_five_times_a_second_at_most_and_ends_full(tmp_path: Path, clock: Clock) -> None:
    log = Logbook(tmp_path / "m", terminal()[0])
    seen = []
    with log.progress(100, 0):
        assert log._progress is not None
        (task,) = log._progress.tasks
        for step in range(1, 100):
            clock.now += 0.05
            log.show(step, "1/1", means_of(loss=1.0), SPEED)
            seen.append(task.completed)
    assert len(set(seen)) == pytest.approx(99 * 0.05 / 0.2, abs=6)
    assert len(set(seen)) <= 99 * 0.05 / 0.2 + 1
    assert task.completed == 100


def test_an_error_ends_the_bar_where_it_is(tmp_path: Path, clock: Clock) -> None:
    log = Logbook(tmp_path / "m", terminal()[0])
    with pytest.raises(KeyboardInterrupt), log.progress(100, 0):
        assert log._progress is not None
        bar = log._progress
        log.show(30, "1/1", means_of(loss=1.0), SPEED)
        raise KeyboardInterrupt
    assert bar.tasks[0].completed == 30
    clock.now += 1
    log.show(60, "1/1", means_of(loss=1.0), SPEED)  # of what comes after it is told nothing
    assert bar.tasks[0].completed == 30


def test_no_bar_without_a_terminal(tmp_path: Path, clock: Clock) -> None:
    file = io.StringIO()
    for console in (Console(file=file), None):
        log = Logbook(tmp_path / "m", console)
        with log.progress(10, 0):
            log.show(5, "1/1", means_of(loss=0.5), SPEED)
        if console is None:
            log.say("nobody hears this")
    assert file.getvalue() == ""
    assert not (tmp_path / "m").exists()
