"""How the pictures of a batch are computed on a processor: each by itself."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from birder.cores import available_cores
from birder.data.fitting import Pixels, normalized
from birder.inference.backends.base import Backend, Outputs, Pending, check
from birder.inference.rows import Floats
from birder.signature import RGBStats

ComputeOne: TypeAlias = Callable[[Floats], Outputs]
"""One normalised picture (1, C, H, W) to its answers, which stay as they are after the next call."""


class OneByOne(Backend):
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
        compute: ComputeOne,
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
        self._start(threads, begin)

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        """See ``Backend``."""
        check(pixels, self._shape)
        pictures = np.split(pixels, len(pixels))
        if not five:
            return Pending([self._pool.submit(self._whole, picture) for picture in pictures])
        import torch

        from birder.inference.classification import five_crops

        # Here and not in the threads that compute, in each of which torch would have threads of its own.
        views = [view.numpy() for view in five_crops(torch.from_numpy(normalized(pixels, self._stats)))]
        parts = zip(*(np.split(view, len(view)) for view in views), strict=True)
        return Pending([self._pool.submit(self._views, part) for part in parts])

    def _whole(self, picture: Pixels) -> list[Outputs]:
        return [self._compute(normalized(picture, self._stats))]

    def _views(self, views: Iterable[Floats]) -> list[Outputs]:
        return [self._compute(view) for view in views]

    def _start(self, threads: int, begin: Callable[[], object]) -> None:
        together = threading.Barrier(threads)  # which all threads must have been started to pass

        def started(_: int) -> None:
            try:
                begin()
                together.wait()
            except BaseException:
                together.abort()
                raise

        try:
            list(self._pool.map(started, range(threads)))
        except BaseException:  # such as no more threads: the others wait for nobody
            together.abort()
            self._pool.shutdown(wait=False)
            raise
