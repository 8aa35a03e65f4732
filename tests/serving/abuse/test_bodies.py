"""Bodies that are too large, too long, too short, too slow or too late, and forms that are none."""

import contextlib
import gzip
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.decoders import eventually
from tests.serving.abuse.conftest import FILES, LONG, MIB, SECONDS
from tests.serving.live import BOUNDARY, Answer, Live, multipart, part, request

# Bodies that are too large, too long, too short or too slow.


def test_a_body_that_says_it_is_too_large(live: Live) -> None:
    for path in ("/v1/predict", "/v1/embed", "/v1/explain"):
        answer = live.sent(live.head(f"content-length: {(MIB << 20) + 1}", target=path))
        assert answer is not None
        assert str(MIB) in answer.refused(413, "too-large")
    for length in (10**18, 10**40):
        answer = live.sent(live.head(f"content-length: {length}"))
        assert answer is None or answer.status in (400, 413)


def test_a_body_of_the_largest_size(live: Live) -> None:
    assert live.predict(bytes(MIB << 20)).rows()[0]["code"] == "not_an_image"


@pytest.mark.parametrize("kind", ["image/jpeg", f"multipart/form-data; boundary={BOUNDARY}"])
def test_a_body_that_goes_on(live: Live, kind: str) -> None:
    first = b"" if kind == "image/jpeg" else f"--{BOUNDARY}\r\nContent-Disposition: {FILE}\r\n\r\n".encode()
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with live.wire() as wire:
        wire.send(live.head("transfer-encoding: chunked", f"content-type: {kind}"))
        if first:
            wire.send(b"%x\r\n" % len(first) + first + b"\r\n")
        for _ in range(16 * MIB + 1):
            wire.send(chunk)
        answer = wire.answer()
        assert answer is not None
        answer.refused(413, "too-large")
        began = time.monotonic()  # it will not take the rest of it, as long as it may be
        while wire.send(chunk) and time.monotonic() < began + 5:
            time.sleep(0.01)
        assert time.monotonic() < began + 5


def test_a_body_in_chunks_is_a_body(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    pieces = [b"%x\r\n" % 1 + good[i : i + 1] + b"\r\n" for i in range(len(good))]
    answer = live.sent(live.head("transfer-encoding: chunked"), b"".join(pieces), b"0\r\n\r\n")
    assert answer is not None and answer.predictions() == [expected]


def test_a_length_that_is_too_short(live: Live, good: bytes) -> None:
    """What is left of the body is the next request, which is none."""
    with live.wire() as wire:
        wire.send(live.head("content-length: 100"), good)
        first = wire.answer()
        assert first is not None and first.rows()[0]["status"] == "error"
        second = wire.answer()
        assert second is None or second.status == 400
        assert wire.hung_up()


def test_a_length_that_is_too_long(live: Live, good: bytes) -> None:
    answer = live.sent(live.head(f"content-length: {len(good) + 1}"), good, end=True)
    assert answer is None or answer.status == 400


def test_what_is_slow_is_given_up(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """All at once; the good ones do not wait for them."""
    begun = live.head(f"content-length: {len(good)}")
    form = live.head("content-length: 5000", f"content-type: multipart/form-data; boundary={BOUNDARY}")
    chunked = live.head("transfer-encoding: chunked")
    cases: dict[str, tuple[bytes, bytes]] = {  # what is sent at once, and what is sent again and again
        "nothing": (b"", b""),
        "half a line": (b"POST /v1/pre", b""),
        "half a head": (b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\n", b""),
        "a head that goes on": (b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n", b"a: b\r\n"),
        "a line that goes on": (b"GET /", b"a"),
        "a head and silence": (begun, b""),
        "half a body and silence": (begun + good[: len(good) // 2], b""),
        "a body byte by byte": (begun, b"\xff"),
        "chunks byte by byte": (chunked, b"1\r\n\xff\r\n"),
        "chunks and silence": (chunked + b"5\r\nab", b""),
        "a form and silence": (form + f"--{BOUNDARY}\r\n".encode(), b""),
        "a form byte by byte": (form + f"--{BOUNDARY}\r\n".encode(), b"a"),
    }
    took: dict[str, float] = {}
    said: dict[str, Answer | None] = {}

    def play(name: str, first: bytes, again: bytes) -> None:
        began = time.monotonic()
        with live.wire(timeout_s=0.2) as wire:
            wire.send(first)
            while time.monotonic() < began + 4 * SECONDS:
                with contextlib.suppress(TimeoutError):
                    wire.socket.recv(1, socket.MSG_PEEK)
                    said[name] = wire.answer()
                    took[name] = time.monotonic() - began
                    return
                wire.send(again)

    with ThreadPoolExecutor(len(cases)) as pool:
        playing = [pool.submit(play, name, *bytes_) for name, bytes_ in cases.items()]
        while not all(one.done() for one in playing):
            began = time.monotonic()
            assert live.predict(good).predictions() == [expected]
            assert time.monotonic() - began < SECONDS / 2
            time.sleep(0.1)
        for one in playing:
            one.result()
    assert cases.keys() - took.keys() == set(), "never given up"
    assert {name for name, seconds in took.items() if not SECONDS / 2 < seconds < 2 * SECONDS} == set(), took
    for name, answer in said.items():
        if "body" in name or "chunks" in name or "form" in name or name == "a head and silence":
            assert answer is not None, name
            answer.refused(408, "slow")
        else:
            assert answer is None or answer.status in (400, 408), name


def test_nonsense_after_an_answer(live: Live) -> None:
    """An answer has been given when the rest of the body turns out to be none; it cannot be given again."""
    with live.wire() as wire:
        wire.send(live.head("transfer-encoding: chunked", "origin: http://example.com"))
        answer = wire.answer()
        assert answer is not None
        answer.refused(403, "forbidden")
        wire.send(b"nonsense\r\n" * 10)
        assert wire.hung_up()


def test_many_that_break_off(live: Live, good: bytes) -> None:
    """Half a request, or a whole one, and nobody there for the answer."""
    whole = request("POST", "/v1/predict", good, port=live.port)
    for length in range(1, len(whole) + 1, len(whole) // 60):
        with live.wire() as wire:
            wire.send(whole[:length])
            if length % 2:  # a reset in place of an end
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(30):
        with live.wire() as wire:
            wire.send(whole)
    assert eventually(lambda: live.connections() == 0)


# Kinds of bodies, and forms that are none.


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/html",
        "application/json",
        "application/x-www-form-urlencoded",
        "a/b;c=" + LONG,
        "\xff\xfe",
        "multipart",
    ],
)
def test_other_kinds_are_a_picture_by_itself(live: Live, good: bytes, expected: dict[str, Any], kind: str) -> None:
    """As curl says x-www-form-urlencoded of any body; what a picture is, its bytes tell."""
    assert live.ask("POST", "/v1/predict", good, content_type=kind).predictions() == [expected]
    assert live.ask("POST", "/v1/predict", b'{"url": 1}', content_type=kind).rows()[0]["code"] == "not_an_image"


def test_no_body(live: Live) -> None:
    assert live.sent(live.head()).refused(400, "bad-request")
    assert live.ask("POST", "/v1/predict", b"").refused(400, "bad-request")


def test_a_packed_body_is_not_unpacked(live: Live) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    for word in ("gzip", "deflate", "br", "x"):
        answer = live.ask("POST", "/v1/predict", bomb, content_encoding=word)
        assert answer.status in (400, 415, 422) or answer.rows()[0]["code"] == "not_an_image"


FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILE = 'form-data; name="files"; filename="a"'
FORMS: dict[str, tuple[str, bytes]] = {
    "no boundary": ("multipart/form-data", multipart([part(FILE, b"a")])),
    "another boundary": ("multipart/form-data; boundary=other", multipart([part(FILE, b"a")])),
    "a long boundary": (f"multipart/form-data; boundary={LONG}", multipart([part(FILE, b"a")], LONG)),
    "a boundary of odd letters": ("multipart/form-data; boundary=\xff\xfe", b"--\xff\xfe\r\n\r\n"),
    "two boundaries": (f"{FORM}; boundary=b", b"--b--\r\n"),
    "never ended": (FORM, multipart([part(FILE, b"a")])[:-9]),
    "only an end": (FORM, f"--{BOUNDARY}--\r\n".encode()),
    "empty": (FORM, b""),
    "text before it": (FORM, b"x" * 5000),
    "no disposition": (FORM, multipart([b"\r\nabc"])),
    "a head without colon": (FORM, multipart([b"what\r\n\r\nabc"])),
    "a head without name": (FORM, multipart([b": what\r\n\r\nabc"])),
    "a head that never ends": (FORM, f"--{BOUNDARY}\r\nA: ".encode() + b"a" * 900_000),
    "many heads": (FORM, multipart([b"a: b\r\n" * 100_000 + b"\r\nabc"])),
    "no field": (FORM, multipart([part('form-data; filename="a"', b"a")])),
    "no pictures": (FORM, multipart([part('form-data; name="checklist"', b"Wren")] * 3)),
    "another field": (FORM, multipart([part('form-data; name="url"', b"http://127.0.0.1/"), part(FILE, b"a")])),
    "many pictures": (FORM, multipart([part(FILE, b"a")] * 10_000)),
    "many fields": (FORM, multipart([part('form-data; name="checklist"', b"a")] * 10_000)),
    "a codec": (
        f"{FORM}; charset=punycode",
        multipart([part('form-data; name="checklist"', b"a-" * 20_000), part(FILE, b"a")]),
    ),
    "a long field": (FORM, multipart([part('form-data; name="checklist"', b"a\n" * 400_000), part(FILE, b"a")])),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_none(live: Live, name: str) -> None:
    kind, body = FORMS[name]
    began = time.monotonic()
    answer = live.form(body, kind)
    assert time.monotonic() - began < SECONDS / 2
    assert answer.status in (400, 413, 422), answer
    assert answer.problem()["code"] == {400: "bad-request", 413: "too-large", 422: "invalid"}[answer.status]
    if name in ("many pictures", "many fields"):
        assert answer.status == 413
    if name == "a long field":
        answer.refused(422, "invalid")
    if name == "a codec":
        assert "UTF-8" in answer.refused(400, "bad-request")
    if name == "many pictures":
        assert str(FILES) in answer.refused(413, "too-large")


def test_a_form_within_a_form_is_no_picture(live: Live, good: bytes) -> None:
    inner = multipart([part('form-data; name="files"; filename="inner.jpg"', good)], "inner")
    outer = part(FILE, inner, "Content-Type: multipart/mixed; boundary=inner")
    (row,) = live.form(multipart([outer])).rows()
    assert (row["name"], row["code"]) == ("a", "not_an_image")
    assert live.form(multipart([outer]), f"multipart/mixed; boundary={BOUNDARY}").rows()[0]["code"] == "not_an_image"


def test_a_boundary_within_a_picture(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """What looks like a boundary, and is not at the beginning of a line, is content."""
    tail = f"--{BOUNDARY}--".encode()
    assert live.form(multipart([part(FILE, good + tail)])).predictions() == [expected]


def test_a_form_in_which_nothing_was_chosen(live: Live) -> None:
    """As a browser sends it."""
    (row,) = live.form(multipart([part('form-data; name="files"; filename=""', b"")])).rows()
    assert (row["name"], row["status"], row["code"]) == ("", "error", "empty")


def test_a_long_checklist(live: Live, good: bytes) -> None:
    """Many names, one of them known, cost little; none known is an error that lists a few."""
    names = "\n".join(f"No bird {number}" for number in range(15_000))
    began = time.monotonic()
    answer = live.predict_all([("a.jpg", good)], ("checklist", names + "\nWren"))
    assert time.monotonic() - began < SECONDS
    assert [item["label"] for item in answer.rows()[0]["answers"]] == ["Wren"]
    assert len(answer.json()["notice"]) < 2000
    assert len(live.predict_all([("a.jpg", good)], ("checklist", names)).refused(422, "invalid")) < 2000
    for text in ("\0", "#", LONG * 10):
        assert len(live.predict_all([("a.jpg", good)], ("checklist", text)).refused(422, "invalid")) < 2000
