"""How the pictures of a batch are computed on a processor: each by itself."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from birder.cores import available_cores
from birder.data.fitting import Pixels, normalized
from birder.inference.backends.base import Outputs, check
from birder.inference.rows import Floats
from birder.signature import RGBStats

Compute: TypeAlias = Callable[[Floats], Outputs]
"""One normalised picture (1, C, H, W) to its answers, which stay as they are after the next call."""
Views: TypeAlias = Callable[[Floats], list[Floats]]
"""Normalised pictures to what of them is looked at."""


class OneByOne:
    """A backend of a processor: each core computes a picture of its own, alone.

    So the answer to a picture is the same to the last bit, whatever else is in the batch and however many cores there
    are; products of matrices of several pictures promise neither. It is not slower either: the cores never wait for
    each other, and one picture fills the registers of a core.

    Attributes:
        name: See ``Backend``.
        device: See ``Backend``.
        batch_size: See ``Backend``.
    """

    device = "cpu"

    def __init__(
        self,
        name: str,
        compute: Compute,
        *,
        shape: tuple[int, int, int, int],
        stats: RGBStats,
        threads: int = 0,
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        """Start the threads.

        Args:
            name: See ``Backend``.
            compute: Several threads call it, each of which computes alone.
            shape: (batch size, C, H, W).
            stats: Colour statistics by which pictures are normalised.
            threads: Cores to use; 0 is all that this process may use.
            begin: What each thread does first.
        """
        self.name, self.batch_size = name, shape[0]
        self._compute, self._shape, self._stats = compute, shape, stats
        threads = threads or available_cores()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        together = threading.Barrier(threads)  # which all threads must have been started to pass
        list(self._pool.map(lambda _: (begin(), together.wait()), range(threads)))

    def __call__(self, pixels: Pixels) -> Outputs:
        """See ``Backend``."""
        return self._answers(pixels, lambda images: [images])[0]

    def five(self, pixels: Pixels) -> list[Outputs]:
        """See ``Backend``."""
        return self._answers(pixels, _five)

    def _answers(self, pixels: Pixels, views: Views) -> list[Outputs]:
        check(pixels, self._shape)

        def one(picture: Pixels) -> list[Outputs]:
            return [self._compute(view) for view in views(normalized(picture, self._stats))]

        answers = self._pool.map(one, np.split(pixels, len(pixels)))
        return [_joined(view) for view in zip(*answers, strict=True)]


def _five(images: Floats) -> list[Floats]:
    import torch

    from birder.inference.classification import five_crops

    return [view.numpy() for view in five_crops(torch.from_numpy(images))]


def _joined(answers: tuple[Outputs, ...]) -> Outputs:
    logits = [answer.logits for answer in answers if answer.logits is not None]
    return Outputs(
        np.concatenate([answer.embeddings for answer in answers]), np.concatenate(logits) if logits else None
    )
