"""Who may ask: which names the server answers to, which sites' pages, and who brings the token."""

import hmac
import time
from collections import OrderedDict
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
    """Stands before an application, and lets through what it may answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """The application, and who may ask it."""
        self._app, self._settings = app, settings
        self._hosts = settings.hosts
        self._token = settings.token.encode()
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # by address: how many, since when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            self._check(scope)
        except Problem as problem:
            problem.unread = True
            await problem.response()(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise Problem("forbidden", "this server answers to its own name only: use the address that it printed")
        origin = headers.get("origin")
        ours = (f"http://{host}", f"https://{host}", *self._settings.origins)
        if origin is not None and origin not in ours:
            raise Problem("forbidden", "pages of other sites may not ask this server; --origin lets one")
        path = scope["path"]
        if self._token and path not in OPEN and not path.startswith(OPEN_BELOW):
            self._check_token(headers.get("authorization", ""), (scope.get("client") or ("", 0))[0])

    def _check_token(self, given: str, address: str) -> None:
        kind, _, token = given.partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token):
            return
        if given and self._guesses(address):
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


def _name(host: str) -> str:
    """The name without the port, small, and an IPv6 address without its brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
