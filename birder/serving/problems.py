"""What went wrong with a request, as a document that programs and people can read.

Paper: Nottingham, Wilde, Dalal 2023, RFC 9457, Problem Details for HTTP APIs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

logger = logging.getLogger("birder")

MEDIA_TYPE = "application/problem+json"
CODES = {
    "bad-request": (400, "The request cannot be understood"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "Not from there"),
    "not-found": (404, "There is nothing at this address"),
    "unknown-model": (404, "No such model is served"),
    "method-not-allowed": (405, "This address is asked in another way"),
    "slow": (408, "The request did not arrive in time"),
    "too-large": (413, "The request is too large"),
    "invalid": (422, "A parameter is wrong"),
    "picture": (422, "The picture cannot be read"),
    "too-many": (429, "Too many requests at a time"),
    "internal": (500, "The server has made a mistake"),
    "busy": (503, "The answer took too long"),
    "stopping": (503, "The server is not ready, or is being stopped"),
}
"""Code of a problem -> status of the answer, and title."""

_LINGER_S = 2.0


class Problem(Exception):
    """A request that is not answered as asked.

    Attributes:
        code: One of ``CODES``.
        detail: What is wrong with this request, and what to do instead.
        headers: More headers of the answer.
        more: More members of the document.
        unread: Whether the request is answered before all of it has been received.
    """

    unread = False

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        """One of ``CODES``, and words."""
        super().__init__(code, detail)
        self.code, self.detail, self.headers, self.more = code, detail, dict(headers or {}), more

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        status, title = CODES[self.code]
        return {
            "type": f"urn:birder:problem:{self.code}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }

    def response(self) -> JSONResponse:
        """As an answer."""
        headers = {**self.headers, "Cache-Control": "no-store"}
        if self.unread:
            headers["Connection"] = "close"
        kind = _Lingering if self.unread else JSONResponse
        return kind(self.document, CODES[self.code][0], headers=headers, media_type=MEDIA_TYPE)


class _Lingering(JSONResponse):
    """Is sent at once, and then what still arrives is taken for a while, and dropped.

    Who is sending would not see the answer if the connection was closed before.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})


def install(app: FastAPI) -> None:
    """Let every error of an application be such a document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _internal)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response()


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"where": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()]
    detail = "; ".join(f"{one['where']}: {one['what']}" for one in errors[:5])
    return Problem("invalid", detail, errors=errors[:100]).response()


async def _http(request: Request, error: Exception) -> JSONResponse:
    """Of the framework itself: no such address, or another method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Problem("not-found", f"there is nothing at {request.url.path[:200]}").response()
    if error.status_code == 405:
        detail = f"{request.url.path[:200]} does not take {request.method[:20]}"
        return Problem("method-not-allowed", detail, headers=error.headers).response()
    return Problem("bad-request", str(error.detail)[:500]).response()


async def _gone(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads it, but it is counted."""
    return Problem("bad-request", "the request broke off").response()


async def _internal(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s", request.method, request.url.path[:200], exc_info=error)
    return Problem("internal", "this is a fault of the server, which has noted it").response()
