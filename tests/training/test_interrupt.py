"""Being told to stop, by real signals, in this process and in a whole group of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birder.data.drawn import DrawnBirds, write_folder
from birder.training.checkpoints import Checkpoints
from birder.training.interrupt import SIGNALS, Interrupt

Handlers = dict[signal.Signals, Any]


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[Handlers]:
    """What stands before each test, and must stand after it."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    own = {number: signal.getsignal(number) for number in SIGNALS}
    yield own
    assert {number: signal.getsignal(number) for number in SIGNALS} == own
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_signal_is_noted_and_the_body_goes_on(number: signal.Signals) -> None:
    interrupt, after = Interrupt(), False
    with interrupt.listening():
        assert not interrupt.asked
        tell(number)
        after = interrupt.asked
    assert after


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    interrupt, passed = Interrupt(), []
    with pytest.raises(KeyboardInterrupt), interrupt.listening():
        tell(signal.SIGINT)
        passed.append("the first")
        tell(signal.SIGINT)
        passed.append("the second")
    assert passed == ["the first"]


def test_so_does_one_that_follows_sigterm() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupt().listening():
        tell(signal.SIGTERM)
        tell(signal.SIGINT)


def test_sigterm_may_come_as_often_as_it_likes() -> None:
    interrupt = Interrupt()
    with interrupt.listening():
        for _ in range(3):
            tell(signal.SIGTERM)
    assert interrupt.asked


def test_an_error_in_the_body_leaves_no_handlers_behind() -> None:
    """The fixture compares."""
    with pytest.raises(ValueError, match="no"), Interrupt().listening():
        raise ValueError("no")


def test_a_handler_that_was_not_set_from_python(monkeypatch: pytest.MonkeyPatch, handlers: Handlers) -> None:
    """Python tells it as None, and takes no None."""
    original = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: original(number, handler) and None)
    with Interrupt().listening():
        pass
    monkeypatch.undo()
    assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_DFL}
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_another_thread_just_runs(handlers: Handlers) -> None:
    seen = []

    def run() -> None:
        with Interrupt().listening():
            seen.append({number: signal.getsignal(number) for number in SIGNALS})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [handlers]


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_reaches_all_processes_and_the_run_is_saved(root: Path, tmp_path: Path) -> None:
    """A terminal tells the whole group: the processes that read pictures, too, which must not die of it."""
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), tmp_path / "birds", 40)
    command = [sys.executable, "-m", "birder", "train", "--data", tmp_path / "birds", "--out", tmp_path / "run"]
    options = "--size 32 --epochs 200 --batch-size 4 --run.device cpu --run.threads 1 --run.workers 2"
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options.split(), "--run.save-minutes", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep=2)
    while process.poll() is None and not checkpoints.paths():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    step = int(checkpoints.paths()[0].stem)
    assert f"stopped at step {step} of 4000; the same command goes on" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_the_end_of_the_terminal_is_not_heard_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt = Interrupt()
        with interrupt.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupt.asked
    finally:
        signal.signal(signal.SIGHUP, before)
