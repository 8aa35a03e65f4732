"""Bodies of requests as pictures in memory, within limits; nothing of them touches the disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from birder.inference.checklist import listed
from birder.serving.problems import Problem
from birder.serving.settings import Limits

MOST_NAMES = 20_000
"""Species on a checklist."""

_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
_MOST_FIELDS = 20
_LONGEST_FIELD = 2 << 20
_LONGEST_NAME = 300


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture as it was sent."""

    name: str
    """What the sender calls it: printable text, at most 300 characters. No file has ever this name."""
    content: bytes
    """The file, of any kind."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a request has brought."""

    uploads: list[Upload]
    """In the order in which they were sent."""
    checklist: list[str]
    """Names of species, in the order in which they were sent."""


class Room:
    """What all requests may hold together: bytes of their bodies, and pictures that are under way.

    Attributes:
        held: Bytes that are held now.
        pictures: Pictures that are under way now.
    """

    def __init__(self, limits: Limits, patience_s: Callable[[int], float] = lambda pictures: 1.0) -> None:
        """The limits, and in how many seconds so many pictures will be done."""
        self._limits, self._patience_s = limits, patience_s
        self.held = 0
        self.pictures = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The part of one request, given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held
            self.pictures -= share.pictures

    def add_bytes(self, count: int) -> None:
        """Hold more.

        Raises:
            Problem: too-many.
        """
        if self.held + count > self._limits.held:
            raise self.full()
        self.held += count

    def add_pictures(self, count: int) -> None:
        """Have more under way; a request alone may always.

        Raises:
            Problem: too-many.
        """
        if self.pictures and self.pictures + count > self._limits.queue:
            raise self.full()
        self.pictures += count

    def full(self) -> Problem:
        """That more is asked than can be held."""
        seconds = min(max(1, round(self._patience_s(self.pictures))), 60)
        detail = f"{self.pictures} pictures are under way: try again in {seconds} s"
        return Problem("too-many", detail, headers={"Retry-After": str(seconds)})


class Share:
    """What one request holds.

    Attributes:
        held: Bytes.
        pictures: Pictures that are under way.
        complete: Whether all of its body has been received.
    """

    def __init__(self, room: Room) -> None:
        """Nothing yet."""
        self._room = room
        self.complete = False
        self.held = 0
        self.pictures = 0

    def add_bytes(self, count: int) -> None:
        """See ``Room``."""
        self._room.add_bytes(count)
        self.held += count

    def add_pictures(self, count: int) -> None:
        """See ``Room``."""
        self._room.add_pictures(count)
        self.pictures += count


async def read_body(request: Request, limits: Limits, share: Share) -> Body:
    """Receive a request.

    A form, ``multipart/form-data``, has a picture in each part that has a file name, and may have the field
    ``checklist``; a body of any other type is one picture.

    Raises:
        Problem: bad-request, slow, too-large or too-many.
        ClientDisconnect: Who sent it has gone.
    """
    try:
        async with asyncio.timeout(limits.request_seconds):
            try:
                return await _received(request, limits, share)
            except Problem as problem:
                problem.unread = not share.complete
                raise
    except TimeoutError as error:
        detail = f"the request did not arrive within {limits.request_seconds:g} s"
        raise Problem("slow", detail, headers={"Connection": "close"}) from error


async def _received(request: Request, limits: Limits, share: Share) -> Body:
    stream = _limited(request, limits, share)
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        content = b"".join([chunk async for chunk in stream])
        if not content:
            raise Problem("bad-request", "the request has no body: send a picture, or a form with pictures")
        return Body(uploads=[Upload(name=shown(request.query_params.get("name", "")), content=content)], checklist=[])
    return await _form(request, limits, stream)


async def _limited(request: Request, limits: Limits, share: Share) -> AsyncGenerator[bytes, None]:
    """The body piece by piece, as long as it is not too much."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > limits.max_body:
        raise _too_large(limits)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.max_body:
            raise _too_large(limits)
        share.add_bytes(len(chunk))
        yield chunk
    share.complete = True


def _too_large(limits: Limits) -> Problem:
    detail = f"a request may have {limits.max_body / 2**20:g} MiB: send fewer pictures at a time"
    return Problem("too-large", detail, headers={"Connection": "close"})


class _InMemory(MultiPartParser):
    """Starlette's parser of forms, which would put large parts into files."""

    spool_max_size = 1 << 62


async def _form(request: Request, limits: Limits, stream: AsyncGenerator[bytes, None]) -> Body:
    _, said = parse_options_header(request.headers["content-type"])
    if said.get(b"charset", b"utf-8").lower() not in _CHARSETS:  # others of Python's may take minutes to decode
        raise Problem("bad-request", "the text of a form must be UTF-8")
    parser = _InMemory(
        request.headers,
        stream,
        max_files=limits.max_files,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        code = "too-large" if error.message.startswith(("Too many", "Part exceeded")) else "bad-request"
        raise Problem(code, f"the form cannot be read: {error.message}", headers={"Connection": "close"}) from error
    try:
        body = _parts(form)
    finally:
        await form.close()
    if not body.uploads:
        raise Problem("bad-request", "the form has no picture: a part with a file name")
    return body


def _parts(form: FormData) -> Body:
    uploads, checklist = [], []
    for field, value in form.multi_items():
        if isinstance(value, UploadFile):
            uploads.append(Upload(name=shown(value.filename or ""), content=value.file.read()))
            value.file.close()  # it has been copied
        elif field == "checklist":
            names = listed(value)
            if value.strip() and not names:
                raise Problem("invalid", "checklist: it names nothing")
            checklist += names
            if len(checklist) > MOST_NAMES:
                raise Problem("invalid", f"checklist: may have {MOST_NAMES} names, not {len(checklist)}")
        else:
            raise Problem("bad-request", f"the form has a field {shown(field)!r}, which is no picture and no checklist")
    return Body(uploads=uploads, checklist=[shown(name) for name in checklist])


def shown(name: str) -> str:
    """A name as text that can be printed and sent anywhere, and is not too long."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name[:_LONGEST_NAME])
    return clean.encode("utf-8", "replace").decode()
