"""Pictures that are more than they look, kill or hang what reads them, or have names that lead elsewhere."""

import contextlib
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.decoders import eventually
from tests.serving import hostile
from tests.serving.abuse.conftest import FILES, LONG, QUEUE, SECONDS, Place
from tests.serving.live import BOUNDARY, Live, multipart, part, request

# Names of files: they are said again, and nothing else is done with them.

NAMES = [
    "../secret.jpg",
    "../../../../../../etc/passwd",
    "/etc/passwd",
    "~/secret.jpg",
    "C:\\Windows\\win.ini",
    "..\\..\\secret.jpg",
    "\\\\server\\share\\a.jpg",
    "file:///etc/passwd",
    "http://127.0.0.1/a.jpg",
    "a\0.jpg",
    "a\n.jpg",
    "a\r\n.jpg",
    "a\x1b[31m.jpg",
    "\u202egpj.exe",
    "🐦" * 1000,
    LONG,
    "%2e%2e%2fsecret.jpg",
    "a;b=c.jpg",
    "<script>alert(1)</script>.jpg",
    "CON",
    "-",
    ".",
    " ",
    "$(touch made)",
    "'; DROP TABLE birds; --",
    "{{7*7}}",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:40]))
def test_names_are_only_names(live: Live, place: Place, good: bytes, name: str) -> None:
    """A picture is what was sent, whatever lies where its name leads; nor is anything written there."""
    said = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)[:300]
    short = len(name) <= 300
    if short:
        for content, code in ((good, ""), (b"no picture", "not_an_image")):
            (row,) = live.predict(content, name=name).rows()
            assert (row["name"], row["code"]) == (said, code)
    else:
        live.predict(good, name=name).refused(422, "invalid")
    answer = live.predict_all([(name, b"no picture")])
    if answer.status == 200:
        (row,) = answer.rows()
        assert row["name"].rpartition("\\")[2] == said.rpartition("\\")[2] and row["code"] == "not_an_image"
    else:
        answer.refused(400, "bad-request")
        assert not short or {"\0", "\r", "\n"} & set(name)
    place.watched.touched()  # the proof has to be able to fail
    (place.cwd.parent / "secret.jpg").read_bytes()
    assert place.watched.touched() == [place.cwd.parent / "secret.jpg"]


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="f"; filename="\xff\xfe.jpg"',
        b'form-data; name="f"; filename="\xed\xa0\x80.jpg"',
        b"form-data; name=f; filename*=UTF-8''..%2f..%2fsecret.jpg",
        b"form-data; name=f; filename*=x'y'%ff%00",
        b'form-data; name="f"; filename="a"; filename="b"',
        b'form-data; name="f"; filename="a\\"b.jpg"',
        b'form-data; name="f"; filename=bare.jpg',
        b'FORM-DATA; NAME="f"; FILENAME="a.jpg"',
    ],
)
def test_odd_dispositions(live: Live, good: bytes, expected: dict[str, Any], disposition: bytes) -> None:
    body = multipart([b"Content-Disposition: " + disposition + b"\r\n\r\n" + good])
    answer = live.form(body)
    assert answer.status in (400, 422) or answer.predictions() == [expected]
    if answer.status != 200:
        answer.problem()


# Pictures.


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_pictures_that_are_more_than_they_look(live: Live, name: str) -> None:
    make, code = hostile.BOMBS[name]
    content, began = make(), time.monotonic()
    (row,) = live.predict(content, name=name).rows()
    assert (row["status"], row["code"], row["answers"]) == ("error", code, [])
    assert time.monotonic() - began < SECONDS / 2
    live.ask("POST", "/v1/explain", content).refused(422, "picture")


def test_an_animation_is_its_first_frame(live: Live) -> None:
    (row,) = live.predict(hostile.gif(9, 9, 40_000)).rows()
    assert (row["status"], row["width"], row["height"]) == ("ok", 9, 9)


def test_large_and_small_pictures_together(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """A part of what Pillow lets pass."""
    large = hostile.black_png(6000, 6000)
    rows = live.predict_all([("a", good), ("b", large), ("c", good)]).predictions()
    assert [rows[0], rows[2]] == [expected] * 2 and rows[1]["status"] == "ok"


@pytest.mark.parametrize("word", ["SEGFAULT", "EXIT"])
def test_a_decoder_that_dies_takes_one_picture_with_it(
    live: Live, good: bytes, expected: dict[str, Any], word: str
) -> None:
    rows = live.predict_all([("a", good), ("b", word.encode()), ("c", good)]).rows()
    assert [row["code"] for row in rows] == ["", "crashed", ""]
    live.ask("POST", "/v1/explain", word.encode()).refused(422, "picture")


def test_a_decoder_that_hangs(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    began = time.monotonic()
    answer = live.predict(b"HANG")
    if answer.status == 200:
        assert answer.rows()[0]["code"] == "timeout"
    else:
        answer.refused(503, "busy")
    assert time.monotonic() - began < 2 * SECONDS
    assert eventually(lambda: live.predict(good).status == 200, 3 * SECONDS)


def test_readers_that_are_killed(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """While they have nothing to do, and while they have."""
    for pause in (0, 0, 0.01, 0.05):
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(live.predict, good) for _ in range(16)]
            time.sleep(pause)
            for pid in live.readers()[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert all(one.result().predictions() == [expected] for one in asked)


# The queue.


def test_more_than_the_queue_holds(live: Live, place: Place, good: bytes, expected: dict[str, Any]) -> None:
    """While a picture takes its time, so many wait, and more are told to come again; who waited is answered."""
    gate = place.gates / "open"
    slow = hostile.waiting_for(gate)
    with ThreadPoolExecutor(4 * QUEUE) as pool:
        held = [pool.submit(live.predict, slow) for _ in range(3)]
        time.sleep(0.3)
        asked = [pool.submit(live.predict, good) for _ in range(3 * QUEUE)]
        refused = lambda: [one.result() for one in asked if one.done() and one.result().status == 429]  # noqa: E731
        assert eventually(lambda: len(refused()) >= QUEUE, SECONDS / 2), len(refused())
        live.get("/healthz").json()
        gate.touch()
        done = [one.result() for one in asked]
        assert all(one.result().status == 200 for one in held)
        gate.unlink()
    for answer in done:
        if answer.status == 429:
            answer.refused(429, "too-many")
        else:
            assert answer.predictions() == [expected]
    assert sum(answer.status == 200 for answer in done) >= QUEUE / 2


def test_who_has_gone_is_not_worked_for(live: Live, place: Place, good: bytes) -> None:
    """A sender hangs up while a picture takes its time: the others of the form are given up at once."""
    parts = [part(f'form-data; name="files"; filename="{number}"', good) for number in range(FILES - 1)]
    slow = part('form-data; name="files"; filename="slow"', hostile.waiting_for(place.gates / "never"))
    form = f"multipart/form-data; boundary={BOUNDARY}"
    with live.wire() as wire:
        wire.send(request("POST", "/v1/predict", multipart([slow, *parts]), port=live.port, content_type=form))
        assert eventually(lambda: live.under_way() == FILES)
    assert eventually(lambda: live.under_way() == 0, 0.6)  # sooner than the reader gives up


# The system.


def test_a_full_disk_does_not_matter(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """No process may write a byte into a file, and none has to: not even to start a reader, or to tell an error."""
    readers = live.readers()
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in live.family()}
    try:
        for pid, (_, highest) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, highest))
        large = hostile.black_png(3000, 3000)
        rows = live.predict_all([("a", good), ("b", large), ("c", good)]).predictions()
        assert [rows[0], rows[2]] == [expected] * 2 and rows[1]["status"] == "ok"
        assert live.predict(b"SEGFAULT").rows()[0]["code"] == "crashed"
        assert live.readers() != readers, "a new one was started meanwhile"
        assert live.predict(good).predictions() == [expected]
    finally:
        for pid in live.family():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before[live.process.pid])
