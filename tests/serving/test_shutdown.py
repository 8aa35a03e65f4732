"""How a server ends, and how it does not begin: nothing that it has accepted is lost, and nothing is left behind."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.decoders import add_decoders, eventually
from tests.serving import hostile
from tests.serving.live import Live, Wire, request, started
from tests.serving.small import bird, small_model

COUNT = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are pictures that take as long as a test needs."""
    (tmp_path / "modules").mkdir()
    add_decoders(tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_accepted_is_answered(model: Path, tmp_path: Path) -> None:
    """Also who is still sending; and who has asked for nothing yet does not hold it up."""
    gate, pictures = tmp_path / "gate", [bird(number) for number in range(COUNT)]
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(Live(model))
        alone = [live.predict(picture).rows() for picture in pictures]
        held, half, idle, *wires = (stack.enter_context(live.wire(timeout_s=30)) for _ in range(COUNT + 3))
        held.send(request("POST", "/v1/predict", hostile.waiting_for(gate), port=live.port))
        for wire, picture in zip(wires, pictures, strict=True):
            wire.send(request("POST", "/v1/predict", picture, port=live.port))
        whole = request("POST", "/v1/predict", pictures[0], port=live.port)
        half.send(whole[:-100])
        assert eventually(lambda: live.under_way() == COUNT + 1)
        family = live.family()
        live.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: refused(live))
        assert idle.hung_up()
        gate.touch()
        half.send(whole[-100:])
        assert [rows_of(wire) for wire in wires] == alone
        assert rows_of(half) == alone[0]
        assert rows_of(held)[0]["status"] == "ok"
        assert live.process.wait(20) == 0
        assert live.printed() == [], "one line, the address"
        assert "Traceback" not in live.said, live.said
        assert eventually(lambda: not any(map(running, family)), 3)


def rows_of(wire: Wire) -> list[dict[str, Any]]:
    answer = wire.answer()
    assert answer is not None
    return answer.rows()


def refused(live: Live) -> bool:
    """Whether a new request is not taken any more."""
    try:
        with live.wire() as wire:
            wire.send(request("GET", "/v1/models", port=live.port))
            answer = wire.answer()
    except ConnectionError:
        return True
    if answer is None:
        return True
    if answer.status != 200:
        answer.refused(503, "stopping")
    return answer.status != 200


@pytest.mark.parametrize("first", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_ctrl_c_after_a_signal_ends_at_once(first: int, model: Path, tmp_path: Path) -> None:
    """A second SIGTERM does not: who sends it twice has not lost patience."""
    with Live(model) as live, live.wire() as wire:
        family = live.family()
        wire.send(request("POST", "/v1/predict", hostile.waiting_for(tmp_path / "never"), port=live.port))
        assert eventually(lambda: live.under_way() == 1)
        live.process.send_signal(first)
        assert eventually(lambda: refused(live))
        live.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            live.process.wait(0.3)
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(5) == 130
        assert "Traceback" not in live.said, live.said
        assert eventually(lambda: not any(map(running, family)), 3)


def test_nothing_outlives_a_server_that_is_killed(model: Path) -> None:
    with Live(model) as live:
        family = live.family()
        assert len(family) > 1
        live.process.kill()
        assert eventually(lambda: not any(map(running, family)), 3)


def test_it_says_when_it_is_ready(model: Path) -> None:
    """Before, nobody is served, or told to come again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = started(model, "--port", str(port))
    seen = set()
    try:
        said = threading.Event()
        assert process.stdout is not None
        first = threading.Thread(target=lambda out: (out.readline(), said.set()), args=(process.stdout,), daemon=True)
        first.start()
        while not said.is_set():
            seen.add(ready(port))
            time.sleep(0.02)
        assert ready(port) == 200
        assert seen <= {None, 503, 200}
        assert None in seen or 503 in seen
    finally:
        process.kill()
        process.communicate()


def ready(port: int) -> int | None:
    try:
        with Wire(port) as wire:
            wire.send(request("GET", "/readyz", port=port))
            answer = wire.answer()
    except ConnectionError:
        return None
    if answer is not None and answer.status == 503:
        answer.refused(503, "stopping")
    return answer.status if answer else None


# What does not begin.


def test_what_cannot_be_served(tmp_path: Path) -> None:
    """A message that says what, and exit code 2, in place of a server; all at a time, as each start takes seconds."""
    short = tmp_path / "short"
    short.write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(2) as pool:
        port = str(other.getsockname()[1])
        cases = {
            ("--port", port): port,
            ("--host", "192.0.2.1"): "192.0.2.1",
            ("--token-file", str(tmp_path)): str(tmp_path),
            ("--token-file", str(short)): "16",
        }
        for words, message in zip(cases.values(), pool.map(refusal, cases), strict=True):
            assert words in message
            assert "secret" not in message


def refusal(words: tuple[str, ...]) -> str:
    """What is said of a command line that cannot be done."""
    command = [sys.executable, "-m", "birder", "serve", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended
    assert ended.stdout == "" and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr
