"""The page and its parts, as they lie in the folder ``page``: all in memory, and nothing else can be asked for."""

import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

_FOLDER = Path(__file__).with_name("page")
_FIRST = "index.html"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}  # which systems may hold otherwise
# What the page may do: be shown, and ask this server. Nothing is fetched from elsewhere, nor does it stand in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Let an application give the page at ``/``, and its parts below ``/page/``."""
    for path in sorted(_FOLDER.iterdir()):
        address = "/" if path.name == _FIRST else f"/page/{path.name}"
        app.api_route(address, methods=["GET", "HEAD"], include_in_schema=False)(
            _giving(path.read_bytes(), _KINDS[path.suffix])
        )


def _giving(content: bytes, kind: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    async def give(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return give
