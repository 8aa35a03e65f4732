"""Where requests come in: finds the model, receives the pictures, waits for the answers no longer than allowed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from birder.errors import ConfigError, UnknownName
from birder.serving.metrics import Metrics
from birder.serving.models import Seen, Served
from birder.serving.problems import Problem
from birder.serving.settings import Limits
from birder.serving.uploads import Body, Room, Upload, read_body

Answer = TypeVar("Answer")

_PER_PICTURE_S = 0.1  # a guess, until a picture was computed


class Desk:
    """The models of a server, and its limits.

    Attributes:
        models: By name.
        default: Name of the one that is taken where none is asked for.
        metrics: Where requests and pictures are counted.
    """

    def __init__(self, models: Sequence[Served], limits: Limits, metrics: Metrics, room: Room) -> None:
        """The models, of different names, the first of which is the default; what all requests may hold together."""
        self.models = {served.name: served for served in models}
        self.default = models[0].name
        self.metrics = metrics
        self._limits, self._room = limits, room

    def ready(self) -> bool:
        """Whether all models can answer."""
        return all(served.working for served in self.models.values())

    def find(self, name: str) -> Served:
        """The model of a name, or the default of no name.

        Raises:
            Problem: unknown-model.
        """
        served = self.models.get(name or self.default)
        if served is None:
            raise Problem("unknown-model", f"no model is called {name!r} (there are: {', '.join(self.models)})")
        return served

    def find_classifier(self, name: str) -> Served:
        """The same, of models that name species.

        Raises:
            Problem: unknown-model, or invalid.
        """
        served = self.find(name)
        if not served.classifies:
            raise Problem("invalid", f"{served.name} gives embeddings, no species: ask /v1/embed")
        return served

    async def answered(self, request: Request, answer: Callable[[Body], Awaitable[Answer]]) -> Answer:
        """Receive the pictures of a request, and give what is made of them, unless who has asked goes away.

        Raises:
            Problem: Whatever was wrong.
            ClientDisconnect: Who asked has gone.
        """
        with self._room.share() as share:
            body = await read_body(request, self._limits, share)
            share.add_pictures(len(body.uploads))
            async with self._in_time():
                return await _unless_gone(request, answer(body))

    async def each(
        self, served: Served, uploads: Sequence[Upload], answer: Callable[[Upload], Awaitable[Seen]]
    ) -> list[Seen]:
        """The answers to all pictures of a request, which wait together; if one fails, the others are given up."""
        tasks = [asyncio.ensure_future(answer(upload)) for upload in uploads]
        try:
            all_seen = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        for seen in all_seen:
            self.metrics.picture(served.name, seen.row.status)
        return list(all_seen)

    async def thumbnail(self, served: Served, number: int) -> bytes | None:
        """A picture of a model's index, if it can still be read.

        Raises:
            Problem: too-many, or busy.
        """
        with self._room.share() as share:
            share.add_pictures(1)
            async with self._in_time():
                return await served.thumbnail(number)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                yield
        except TimeoutError as error:
            detail = f"there was no answer within {self._limits.request_seconds:g} s: send fewer pictures at a time"
            raise Problem("busy", detail, headers={"Retry-After": "5"}) from error


@contextmanager
def told() -> Iterator[None]:
    """What is wrong with the parameters of a request, as a problem.

    Raises:
        Problem: invalid.
    """
    try:
        yield
    except (ConfigError, UnknownName) as error:
        raise Problem("invalid", str(error)) from error


def patience_s(models: Sequence[Served], pictures: int) -> float:
    """In how many seconds so many pictures will be done, by the speed of late."""
    speeds = [served.batcher.pictures_per_s for served in models if served.batcher.pictures_per_s]
    return pictures * (1 / min(speeds) if speeds else _PER_PICTURE_S)


async def _unless_gone(request: Request, answer: Awaitable[Answer]) -> Answer:
    """The answer, which is not worked for any more when nobody waits for it."""
    working, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
