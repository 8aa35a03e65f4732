"""Who may ask: names of the server, pages of other sites, tokens."""

import asyncio
from typing import Any

import pytest

from birder.errors import ConfigError
from birder.serving import access
from birder.serving.access import Access, Token
from birder.serving.settings import Limits, Settings

TOKEN = "a-token-of-some-length"


def asked(
    guard: Access, path: str = "/v1/models", client: str = "10.0.0.1", **headers: str
) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": (client, 1234),
    }

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def guard(**options: Any) -> Access:
    """All that stands before an application."""
    settings = Settings(**options)
    return Access(Token(inner, settings.token), settings)


def test_on_loopback_only_its_own_names_are_answered() -> None:
    local = guard()
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"):
        assert asked(local, host=host)[0] == 200
    for host in ("birds.example.org", "127.0.0.1.example.org:8000", "", "[::1", "10.0.0.1", "localhost.example"):
        assert asked(local, host=host)[0] == 403
    assert asked(local)[0] == 403
    assert asked(guard(host="0.0.0.0"), host="birds.example.org")[0] == 200
    assert asked(guard(origins=("https://birds.example.org",)), host="birds.example.org")[0] == 200


def test_pages_of_other_sites_may_not_ask() -> None:
    host = "127.0.0.1:8000"
    site = "https://birds.example.org"
    assert asked(guard(), host=host, origin=f"http://{host}")[0] == 200
    for origin in (site, "null", "http://127.0.0.1:8001", "http://localhost:8000", "", "127.0.0.1:8000"):
        assert asked(guard(), host=host, origin=origin)[0] == 403, origin
    assert asked(guard(origins=(site,)), host=host, origin=site)[0] == 200
    assert asked(guard(origins=(site,)), host=host, origin="https://other.example.org")[0] == 403


def test_a_token_is_asked_for_everywhere_but_at_the_page_and_the_signs_of_life() -> None:
    closed = guard(host="0.0.0.0", token=TOKEN)
    for path in ("/", "/page/start.js", "/healthz", "/readyz"):
        assert asked(closed, path)[0] == 200
    for path in ("/v1/models", "/v1/predict", "/metrics", "/openapi.json", "//", "/page", "/PAGE/x", "/nothing"):
        status, headers = asked(closed, path)
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="birder"'), path
    for given in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert asked(closed, authorization=given)[0] == 200
    for given in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer \xe9", ""):
        assert asked(closed, authorization=given)[0] == 401, given


def test_guessing_is_slowed_for_the_one_who_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    closed = guard(host="0.0.0.0", token=TOKEN)
    codes = [asked(closed, authorization=f"Bearer {number}")[0] for number in range(25)]
    assert codes == [401] * 20 + [429] * 5
    status, headers = asked(closed, authorization="Bearer no")
    assert (status, headers["retry-after"]) == (429, "60")
    assert asked(closed, authorization="Bearer no", client="10.0.0.2")[0] == 401
    assert asked(closed, authorization=f"Bearer {TOKEN}")[0] == 200  # or one program could lock out all behind a proxy
    assert asked(closed)[0] == 401
    now[0] += 61
    assert asked(closed, authorization="Bearer no")[0] == 401


def test_guesses_from_many_addresses_are_not_remembered_for_ever() -> None:
    token = Token(inner, TOKEN)
    closed = Access(token, Settings(host="0.0.0.0"))
    for number in range(1200):
        asked(closed, authorization="Bearer no", client=f"10.0.{number // 256}.{number % 256}")
    assert len(token._wrong) == 1000


def test_every_answer_says_that_it_is_what_it_says() -> None:
    for host in ("localhost", "example.org"):
        _, headers = asked(guard(), host=host)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": -1}, "port: must be from 0"),
        ({"token": "short"}, "token: must be 16"),
        ({"token": "with a line\nfeed and more"}, "token: must be"),
        ({"token": "ä" * 20}, "token: must be"),
        ({"origins": ("birds.example.org",)}, "origin: must be like https"),
        ({"origins": ("https://birds.example.org/path",)}, "without a path, not"),
        ({"origins": ("https://Birds.example.org",)}, "small and without"),
        ({"origins": ("http://[::1",)}, "origin: must be like"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**options)
    assert words in str(caught.value)


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="max_body_mib: must be 1 or more, not 0\nqueue: must be 1"):
        Limits(max_body_mib=0, queue=0)
    with pytest.raises(ConfigError, match="request_seconds: must be more than 0"):
        Limits(request_seconds=float("nan"))


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Settings(token=TOKEN))
