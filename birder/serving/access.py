"""Who may ask: which names the server answers to, which sites' pages, and who brings the token."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from birder.serving.problems import Problem
from birder.serving.settings import Settings

OPEN = frozenset({"/", "/healthz", "/readyz"})
"""What needs no token, beside the parts of the page, which tell nothing."""
OPEN_BELOW = "/page/"

# Of every answer: its type is what it says, and no page of another site may show it as a picture or run it.
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))
_WRONG_AT_MOST = 20  # tokens from one address
_WITHIN_S = 60.0
_REMEMBERED = 1000  # addresses


class Access:
    """Stands before an application, and lets through what asks for it by its name, and is no page of another site."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """The application, and who may ask it."""
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await _passed(self._app, self._check, scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host, hosts = headers.get("host", ""), self._settings.hosts
        if hosts is not None and _name(host) not in hosts:
            raise Problem("forbidden", "this server answers to its own name only: use the address that it printed")
        origin = headers.get("origin")
        ours = (f"http://{host}", f"https://{host}", *self._settings.origins)
        if origin is not None and origin not in ours:
            raise Problem("forbidden", "pages of other sites may not ask this server; --origin lets one")


class Token:
    """Stands before an application, and asks for the token, if there is one."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """The application, and the token; empty if none is needed."""
        self._app, self._token = app, token.encode()
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # by address: how many, since when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on."""
        await _passed(self._app, self._check, scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = scope["path"]
        if not self._token or path in OPEN or path.startswith(OPEN_BELOW):
            return
        given = Headers(scope=scope).get("authorization", "")
        kind, _, token = given.partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token):
            return
        if given and self._guesses((scope.get("client") or ("", 0))[0]):
            detail = "too many wrong tokens: wait a minute"
            raise Problem("too-many", detail, headers={"Retry-After": str(round(_WITHIN_S))})
        words = "this token is not the right one" if given else "a token is needed"
        detail = f"{words}: send it as Authorization: Bearer TOKEN; it stands in the address that the server printed"
        raise Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="birder"'})

    def _guesses(self, address: str) -> bool:
        """Note a wrong token; whether there were too many of late."""
        now = time.monotonic()
        count, since = self._wrong.pop(address, (0, now))
        if now - since > _WITHIN_S:
            count, since = 0, now
        self._wrong[address] = (count + 1, since)
        if len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)
        return count >= _WRONG_AT_MOST


async def _passed(app: ASGIApp, check: Callable[[Scope], None], scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on, unless it has a problem."""
    if scope["type"] == "http":
        try:
            check(scope)
        except Problem as problem:
            problem.unread = True
            await problem.response()(scope, receive, send)
            return
    await app(scope, receive, send)


def _name(host: str) -> str:
    """The name without the port, small, and an IPv6 address without its brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
