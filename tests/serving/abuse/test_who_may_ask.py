"""Other hosts, pages of other sites, and those who guess a token."""

from typing import Any

import pytest

from tests.serving.abuse.conftest import LONG, TOKEN
from tests.serving.live import Live

# Hosts, origins, other places.


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "127.0.0.1.example.com",
        "localhost.example.com",
        "0.0.0.0",
        "169.254.169.254",
        "",
        "[::1",
        "127.0.0.1@example.com",
        LONG,
    ],
)
def test_other_hosts_are_refused(live: Live, host: str) -> None:
    """A name of somebody's own that leads here (DNS rebinding) is none of ours."""
    for method, target in (("GET", "/v1/models"), ("POST", "/v1/predict"), ("GET", "/")):
        answer = live.ask(method, target, b"a" if method == "POST" else None, host=host)
        assert answer.status in (400, 403)
        if answer.status == 403:
            answer.refused(403, "forbidden")


def test_our_own_names_are_served(live: Live) -> None:
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", f"localhost:{live.port}", f"[::1]:{live.port}"):
        assert live.get("/v1/models", host=host).json()["models"]


@pytest.mark.parametrize(
    "origin",
    ["http://example.com", "null", "http://127.0.0.1.example.com", "file://", "http://localhost.", "http://[::1", LONG],
)
def test_other_origins_are_refused(live: Live, good: bytes, origin: str) -> None:
    live.ask("POST", "/v1/predict", good, origin=origin).refused(403, "forbidden")
    answer = live.ask("OPTIONS", "/v1/predict", origin=origin, access_control_request_method="POST")
    assert answer.status >= 400
    assert not any(name.startswith("access-control-allow") for name in answer.headers)


def test_the_own_page_is_no_other_origin(live: Live, good: bytes, expected: dict[str, Any]) -> None:
    origin = f"http://127.0.0.1:{live.port}"
    assert live.ask("POST", "/v1/predict", good, origin=origin).predictions() == [expected]
    live.ask("POST", "/v1/predict", good, origin=f"http://127.0.0.1:{live.port + 1}").refused(403, "forbidden")


# Who may ask.


def test_guessing_a_token(guarded: Live, good: bytes, expected: dict[str, Any]) -> None:
    """Wrong ones are refused, after some of them without being looked at for a while; who knows it is not hindered."""
    assert guarded.token == TOKEN
    wrong = ["Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
    wrong += [
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {LONG}",
        "Bearer \xe4\xf6",
        "Bearer \t",
        "\xff",
    ]
    for authorization in wrong:
        answer = guarded.ask("POST", "/v1/predict", good, authorization=authorization)
        answer.refused(401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.body.decode()
    statuses = [guarded.get("/v1/models", authorization=f"Bearer {number}").status for number in range(100)]
    assert statuses[-50:] == [429] * 50
    assert int(guarded.get("/v1/models", authorization="Bearer x").headers["retry-after"]) >= 10
    assert guarded.get("/v1/models", authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.ask("POST", "/v1/predict", good, authorization=f"bearer {TOKEN}").predictions() == [expected]
    assert guarded.get("/v1/models").status == 401, "who does not guess is told what is needed"
    assert TOKEN not in guarded.said


def test_what_needs_a_token(guarded: Live, good: bytes) -> None:
    for path in ("/healthz", "/readyz", "/"):
        assert guarded.get(path).status == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/models/model", "/nothing", "//", "/page/../metrics"):
        assert guarded.get(path).status in (401, 404), path
        assert b"model" not in guarded.get(path).body.replace(b"/v1/models", b"") or guarded.get(path).status == 401
    for path in ("/v1/predict", "/v1/embed", "/v1/explain"):
        for query in ("", f"?token={TOKEN}", f"?access_token={TOKEN}"):
            guarded.ask("POST", path + query, good).refused(401, "unauthorized")
    # Before a body is received: nobody without a token fills the memory.
    answer = guarded.sent(guarded.head("content-length: 1000000"))
    assert answer is not None
    answer.refused(401, "unauthorized")


def test_pages_of_the_other_site(guarded: Live, good: bytes, expected: dict[str, Any]) -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,content-type"}
    answer = guarded.ask("OPTIONS", "/v1/predict", origin="https://birds.example", **asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://birds.example"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    bearer = f"Bearer {TOKEN}"
    answer = guarded.ask("POST", "/v1/predict", good, origin="https://birds.example", authorization=bearer)
    assert answer.predictions() == [expected]
    assert answer.headers["access-control-allow-origin"] == "https://birds.example"
    assert "access-control-allow-credentials" not in answer.headers
    for origin in ("https://birds.example.com", "http://birds.example", "https://a.birds.example", "null"):
        answer = guarded.ask("POST", "/v1/predict", good, origin=origin, authorization=bearer)
        answer.refused(403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers
        answer = guarded.ask("OPTIONS", "/v1/predict", origin=origin, **asked)
        assert answer.status >= 400 and "access-control-allow-origin" not in answer.headers
    refused = guarded.ask("POST", "/v1/predict", good, origin="https://birds.example")
    assert refused.headers["access-control-allow-origin"] == "https://birds.example", "the page must see why"
    refused.refused(401, "unauthorized")
