"""Pictures of many requests, computed together.

Shapes: V views, B pictures, H height, W width, K classes, D size of the embedding.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from birder.data.fitting import Pixels
from birder.inference.rows import Floats

_AT_ONCE = 2
"""Batches that are computed at a time: while the last picture of one is computed, other cores begin the next."""
_RECENT = 0.9  # the share of what was known that a new measurement of speed leaves

Answer = TypeVar("Answer")


class Compute(Protocol):
    """What ``birder.inference.ready.Ready`` is."""

    @property
    def batch_size(self) -> int:
        """Pictures at a time, at most."""
        ...

    def __call__(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Logits (V, B, K) and embeddings (V, B, D) of pictures (B, H, W, 3)."""
        ...


class _Waiting(NamedTuple, Generic[Answer]):
    pixels: Pixels
    finish: Callable[[Floats, Floats], Answer]
    answer: "asyncio.Future[Answer]"


class Batcher(Generic[Answer]):
    """Waits a few milliseconds for a batch to fill; those that come while one is computed are the next.

    To be used from one event loop.

    Attributes:
        pictures_per_s: How fast it has been of late; 0 until something was computed.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        wait_s: float = 0.005,
        watch: Callable[[int, float], None] = lambda count, seconds: None,
    ) -> None:
        """What computes; for how long to wait for others; who is told of each batch, its pictures and seconds."""
        self._compute, self._wait_s, self._watch = compute, wait_s, watch
        self._waiting: deque[_Waiting[Answer]] = deque()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="birder-batch")
        self._free = _AT_ONCE
        self._timer: asyncio.TimerHandle | None = None
        self.pictures_per_s = 0.0

    async def __call__(self, pixels: Pixels, finish: Callable[[Floats, Floats], Answer]) -> Answer:
        """What ``finish`` makes of logits (V, 1, K) and embeddings (V, 1, D) of one picture (H, W, 3).

        Whoever is cancelled while waiting is not computed any more.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(pixels, finish, loop.create_future())
        self._waiting.append(waiting)
        self._begin()
        return await waiting.answer

    def close(self) -> None:
        """Let go of the threads; what waits is cancelled."""
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        """Start full batches, and others when they have waited long enough."""
        while self._free and len(self._waiting) >= self._compute.batch_size:
            self._start()
        if self._waiting and self._free and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if self._waiting and self._free:
            self._start()
            self._begin()

    def _start(self) -> None:
        batch: list[_Waiting[Answer]] = []
        while self._waiting and len(batch) < self._compute.batch_size:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # nobody waits for those of requests that have ended
                batch.append(waiting)
        if not batch:
            return
        self._free -= 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = loop.run_in_executor(self._pool, self._answers, batch)
        answers.add_done_callback(lambda done: self._done(batch, done, loop.time() - began))

    def _answers(self, batch: list[_Waiting[Answer]]) -> list[Answer | Exception]:
        logits, embeddings = self._compute(np.stack([waiting.pixels for waiting in batch]))
        answers: list[Answer | Exception] = []
        for place, waiting in enumerate(batch):
            try:
                answers.append(waiting.finish(logits[:, place : place + 1], embeddings[:, place : place + 1]))
            except Exception as error:  # of this one, and nobody else's
                answers.append(error)
        return answers

    def _done(
        self, batch: list[_Waiting[Answer]], done: "asyncio.Future[list[Answer | Exception]]", seconds: float
    ) -> None:
        self._free += 1
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for place, waiting in enumerate(batch):
            answer = done.result()[place] if error is None else error
            if waiting.answer.done():
                continue
            if isinstance(answer, asyncio.CancelledError):
                waiting.answer.cancel()
            elif isinstance(answer, BaseException):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
        if error is None:
            self._watch(len(batch), seconds)
            speed = len(batch) / max(seconds, 1e-6)
            self.pictures_per_s = (
                _RECENT * self.pictures_per_s + (1 - _RECENT) * speed if self.pictures_per_s else speed
            )
        self._begin()
