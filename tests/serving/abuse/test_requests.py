"""What is no request, or one of a million headers; connections that are only held; questions without sense."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.decoders import eventually
from tests.serving.abuse.conftest import LONG, MIB, SECONDS
from tests.serving.live import Live, request
from tests.serving.small import bird

# Heads.


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(
            lambda live: live.head(*(f"x-{n}: {n}" for n in range(10_000)), method="GET", target="/healthz"), id="many"
        ),
        pytest.param(lambda live: live.head("x: " + "y" * (1 << 20), method="GET", target="/healthz"), id="one"),
        pytest.param(lambda live: live.head("y" * (1 << 20) + ": x", method="GET", target="/healthz"), id="one name"),
        pytest.param(lambda live: live.head(method="GET", target="/healthz?" + "y" * (1 << 20)), id="line"),
        pytest.param(lambda live: live.head(method="Y" * (1 << 20), target="/healthz"), id="method"),
        pytest.param(
            lambda live: live.head(method="GET", target="/healthz")[:-2] + b"x: y\r\n" * 200_000, id="endless"
        ),
    ],
)
def test_floods_of_headers(live: Live, flood: Callable[[Live], bytes]) -> None:
    """Refused, and what is kept of it is bounded."""
    with live.wire() as wire:
        wire.send(flood(live))
        answer = wire.answer()
        assert answer is None or 400 <= answer.status < 500, answer
        if answer is not None:
            answer.problem()


def test_a_thousand_headers_are_many_but_bearable(live: Live) -> None:
    answer = live.sent(live.head(*(f"x-{number}: {number}" for number in range(1000)), method="GET", target="/healthz"))
    assert answer is None or answer.status == 200 or 400 <= answer.status < 500


NO_REQUESTS = {
    "noise": bytes(range(256)) * 20,
    "zeros": bytes(1000),
    "words": b"hello\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "version 99": b"GET /healthz HTTP/99.9\r\nhost: 127.0.0.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "two lengths": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length and chunks": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "negative length": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n",
    "length of words": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: many\r\n\r\n",
    "bad chunk": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "huge chunk": b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
    b"fffffffffffffffff\r\nab\r\n",
    "zero in a header": b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\na: b\0c\r\n\r\n",
    "a line within a header": b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\na : b\r\n c\r\n\r\n",
    "connect": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer secret\r\n\r\n",
    "another host": b"GET http://example.com/ HTTP/1.1\r\nhost: example.com\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: example.com\r\n\r\n",
    "websocket": b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\norigin: http://example.com\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request(live: Live, name: str) -> None:
    answer = live.sent(NO_REQUESTS[name], end=True)
    assert answer is None or 400 <= answer.status < 500, answer
    if answer is not None:
        answer.problem()
        assert b"secret" not in answer.body


def test_requests_one_behind_the_other(live: Live, good: bytes) -> None:
    """Sent without waiting for answers, which come in their order."""
    bodies = [bird(number) for number in range(6)]
    alone = [live.predict(body).predictions() for body in bodies]
    with live.wire() as wire:
        wire.send(b"".join(request("POST", "/v1/predict", body, port=live.port) for body in bodies))
        for one in alone:
            answer = wire.answer()
            assert answer is not None and answer.predictions() == one


def test_thousands_behind_each_other_are_not_kept(live: Live) -> None:
    one = request("GET", "/healthz", port=live.port)
    with live.wire() as wire:
        threading.Thread(target=wire.send, args=(one * 3000,), daemon=True).start()
        assert [wire.answer().status for _ in range(3000)] == [200] * 3000  # type: ignore[union-attr]


def test_hundreds_who_are_only_there(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(live.wire()) for _ in range(400)]
        began = time.monotonic()
        assert live.predict(good).predictions() == [expected]
        assert time.monotonic() - began < SECONDS / 2
        wires[0].send(request("GET", "/healthz", port=live.port))
        answer = wires[0].answer()
        assert answer is None or answer.status == 200


def test_answers_that_nobody_takes(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """Who asks again and again and never reads is not waited for without end."""
    one = request("GET", "/openapi.json", port=live.port)
    with live.wire(timeout_s=1) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(TimeoutError):
            wire.send(*[one] * 2000)
        assert live.predict(good).predictions() == [expected]
        assert eventually(lambda: live.connections() == 0, 3 * SECONDS)


def test_a_body_that_goes_on_after_its_answer(live: Live) -> None:
    """Bit by bit: it was answered without it, and is not listened to without end."""
    with live.wire() as wire:
        wire.send(live.head("content-length: 1000000", "origin: http://example.com"))
        answer = wire.answer()
        assert answer is not None
        answer.refused(403, "forbidden")
        assert eventually(lambda: not wire.send(b"a"), 3 * SECONDS)


def test_100_continue(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    """Who asks first is told to go on, or at once that it is too much."""
    with live.wire() as wire:
        wire.send(live.head(f"content-length: {len(good)}", "expect: 100-continue"))
        answer = wire.answer()
        assert answer is not None and answer.status == 100
        wire.send(good)
        answer = wire.answer()
        assert answer is not None and answer.predictions() == [expected]
    answer = live.sent(live.head(f"content-length: {2 * MIB << 20}", "expect: 100-continue"))
    assert answer is not None
    answer.refused(413, "too-large")


def test_addresses_are_not_fetched(live: Live) -> None:
    """Whether it is sent as a picture, a name, or in any other place."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/bird.jpg"
        assert live.predict(address.encode()).rows()[0]["code"] == "not_an_image"
        assert live.predict(b"a", name=address).rows()[0]["code"] == "not_an_image"
        live.predict_all([], ("url", address), ("picture", address)).refused(400, "bad-request")
        live.predict_all([(address, address.encode())], ("checklist", "Wren"))
        live.predict(b"", model=address, url=address).problem()
        live.ask("POST", f"/v1/explain?label={address}", b"a")
        live.ask("POST", "/v1/predict", b"a", referer=address, x_forwarded_for=address, x_original_url=address)
        time.sleep(0.2)
        with pytest.raises(BlockingIOError):
            listener.accept()


# What is asked.


@pytest.mark.parametrize(
    "query",
    [
        *(
            f"top={value}"
            for value in ("0", "-1", "1e9", "nan", "", "5.5", "five", "99999999999999999999", "0x5", "%00")
        ),
        *(f"min_score={value}" for value in ("nan", "inf", "-0.1", "1.1", "", "much", "1e400")),
        *(f"similar={value}" for value in ("-1", "1e9", "nan")),
        "species=x&species=" + LONG[:400],
        "top=1&top=0",
    ],
)
def test_questions_without_sense(live: Live, good: bytes, query: str) -> None:
    answer = live.ask("POST", f"/v1/predict?{query}", good)
    told = answer.problem()
    assert (answer.status, told["code"]) == (422, "invalid")
    assert query.partition("=")[0] in answer.body.decode()


def test_models_and_labels_that_are_not_there(live: Live, good: bytes) -> None:
    for name in ("nothing", "../model", "/etc/passwd", "model.safetensors", "\0", "\udcff"):
        live.predict(good, model=name.encode("utf-8", "surrogatepass")).refused(404, "unknown-model")
    live.predict(good, model=LONG).refused(422, "invalid")
    live.predict(good, species="Dodo").refused(422, "invalid")
    live.ask("POST", "/v1/explain?label=Dodo", good).refused(422, "invalid")
    live.ask("POST", "/v1/explain?method=magic", good).refused(422, "invalid")


def test_ten_thousand_species(live: Live, good: bytes) -> None:
    """More than fit into a request line, or are many names of which one is known."""
    target = "/v1/predict?species=Wren" + "".join(f"&species=No+bird+{number}" for number in range(2000))
    answer = live.ask("POST", target, good)
    assert [item["label"] for item in answer.rows()[0]["answers"]] == ["Wren"]
    assert len(answer.json()["notice"]) < 2000
    target += "".join(f"&species=No+bird+{number}" for number in range(2000, 50_000))
    answer = live.sent(request("POST", target, good, port=live.port))
    assert answer is None or 400 <= answer.status < 500


@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2f..%2fsettings.py",
        "/page/../../settings.py",
        "/page/%2e%2e/%2e%2e/settings.py",
        "/page/..\\..\\settings.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/page.css%00.html",
        "/page/.",
        "/page/",
        "/page/..",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e",
        "/v1/models/..%2fmodel/card",
        "/v1/models/model/pictures/..%2f1",
        "/v1/models/model/pictures/-1",
        "/v1/models/model/pictures/0",
        "/v1/models/model/pictures/99999999999999999999",
        "//etc/passwd",
        "/%00",
        "/" + LONG,
        "/.git/config",
        "/docs",
    ],
)
def test_paths_that_lead_nowhere(live: Live, path: str) -> None:
    answer = live.get(path)
    assert answer.status in (400, 404, 405, 414, 422), answer
    assert b"root:" not in answer.body
    answer.problem()


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "PROPFIND", "BREW"])
def test_methods_that_are_not_for_this(live: Live, method: str) -> None:
    for path in ("/v1/predict", "/v1/models", "/", "/healthz"):
        answer = live.ask(method, path, b"a")
        if method != "BREW":
            answer.refused(405, "method-not-allowed")
            assert answer.headers["allow"]
        else:
            assert answer.status in (400, 405, 501)
