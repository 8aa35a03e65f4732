"""Pictures of many requests are computed together, and nobody gets the answer of another."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from birder.data.fitting import Pixels
from birder.inference.rows import Floats
from birder.serving.batcher import Batcher


class Recording:
    """Says of each picture the number that it is made of, and remembers the batches."""

    def __init__(self, batch_size: int = 4, seconds: float = 0.0) -> None:
        self.batch_size, self.seconds = batch_size, seconds
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, pixels: Pixels) -> tuple[Floats, Floats]:
        self.batches.append(len(pixels))
        assert self.go.wait(10)
        time.sleep(self.seconds)
        numbers = pixels[None, :, 0, 0, :1].astype(np.float32)
        if (numbers == 255).any():
            raise ValueError("255 is too much")
        return numbers, 2 * numbers


def picture(number: int) -> Pixels:
    return np.full((2, 2, 3), number, np.uint8)


def both(logits: Floats, embeddings: Floats) -> tuple[float, float]:
    assert logits.shape == embeddings.shape == (1, 1, 1)
    return logits.item(), embeddings.item()


def run(play: Callable[[Batcher[Any]], Coroutine[Any, Any, None]], compute: Recording, **options: Any) -> None:
    async def played() -> None:
        batcher: Batcher[Any] = Batcher(compute, **options)
        try:
            async with asyncio.timeout(20):
                await play(batcher)
        finally:
            batcher.close()

    asyncio.run(played())


def test_everyone_gets_the_own_answer() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        async def ask(number: int) -> None:
            await asyncio.sleep(number % 7 / 1000)
            assert await batcher(picture(number), both) == (number, 2 * number)

        await asyncio.gather(*map(ask, range(200)))

    compute = Recording(batch_size=8, seconds=0.001)
    run(play, compute)
    assert sum(compute.batches) == 200
    assert max(compute.batches) == 8


def test_a_single_picture_waits_no_longer_than_said_and_full_batches_not_at_all() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        began = time.monotonic()
        await asyncio.gather(*(batcher(picture(number), both) for number in range(4)))
        assert time.monotonic() - began < 2
        await batcher(picture(9), both)
        assert time.monotonic() - began >= 3

    compute = Recording(batch_size=4)
    run(play, compute, wait_s=3.0)
    assert compute.batches == [4, 1]


def test_what_comes_while_others_are_computed_is_the_next_batch() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        compute.go.clear()
        first = [asyncio.create_task(batcher(picture(number), both)) for number in range(8)]
        while len(compute.batches) < 2:
            await asyncio.sleep(0.001)
        later = [asyncio.create_task(batcher(picture(number), both)) for number in range(3)]
        await asyncio.sleep(0.1)
        compute.go.set()
        await asyncio.gather(*first, *later)

    compute = Recording(batch_size=4)
    run(play, compute)
    assert compute.batches == [4, 4, 3]


def test_who_does_not_wait_any_more_is_not_computed() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        compute.go.clear()
        busy = [asyncio.create_task(batcher(picture(number), both)) for number in range(8)]
        gone = [asyncio.create_task(batcher(picture(number), both)) for number in range(3)]
        stays = asyncio.create_task(batcher(picture(77), both))
        while len(compute.batches) < 2:
            await asyncio.sleep(0.001)
        for task in gone:
            task.cancel()
        compute.go.set()
        assert await stays == (77, 154)
        await asyncio.gather(*busy)

    compute = Recording(batch_size=4)
    run(play, compute)
    assert compute.batches == [4, 4, 1]


def test_an_error_reaches_those_of_its_batch_and_no_others() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        bad = await asyncio.gather(*(batcher(picture(n), both) for n in (1, 255)), return_exceptions=True)
        assert [str(error) for error in bad] == ["255 is too much"] * 2
        assert await batcher(picture(3), both) == (3, 6)

    run(play, Recording(batch_size=2))


def test_an_error_of_one_answer_is_nobody_elses() -> None:
    def fail(logits: Floats, embeddings: Floats) -> Any:
        raise RuntimeError("no answer")

    async def play(batcher: Batcher[Any]) -> None:
        first, failed, last = await asyncio.gather(
            batcher(picture(1), both), batcher(picture(2), fail), batcher(picture(3), both), return_exceptions=True
        )
        assert (first, str(failed), last) == ((1, 2), "no answer", (3, 6))

    compute = Recording(batch_size=3)
    run(play, compute)
    assert compute.batches == [3]


def test_batches_are_told_and_the_speed_is_known() -> None:
    told: list[tuple[int, float]] = []

    async def play(batcher: Batcher[Any]) -> None:
        assert batcher.pictures_per_s == 0
        await asyncio.gather(*(batcher(picture(number), both) for number in range(4)))
        assert 0 < batcher.pictures_per_s < 4 / 0.02

    run(play, Recording(batch_size=4, seconds=0.02), watch=lambda count, seconds: told.append((count, seconds)))
    ((count, seconds),) = told
    assert count == 4
    assert seconds >= 0.02


def test_closing_ends_those_that_wait() -> None:
    async def play(batcher: Batcher[Any]) -> None:
        compute.go.clear()
        tasks = [asyncio.create_task(batcher(picture(number), both)) for number in range(12)]
        while len(compute.batches) < 2:
            await asyncio.sleep(0.001)
        batcher.close()
        compute.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:8] == [(number, 2 * number) for number in range(8)]
        assert all(isinstance(result, asyncio.CancelledError) for result in results[8:])

    compute = Recording(batch_size=4)
    run(play, compute)
