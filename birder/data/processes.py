"""Doing something with every picture of a set, in several processes, without torch."""

import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from birder.data.samples import Samples
from birder.errors import ConfigError, DataError

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called after every picture with the number of those that are done, and of all."""

_FEWEST = 64  # pictures that are worth a process of their own
_AT_ONCE = 16  # pictures that a process is given
_job: list[Any] = []  # of a worker: the function and the samples, which are sent to it once


def each_picture(
    function: Callable[[Samples, int], T], samples: Samples, *, workers: int = 0, progress: Progress | None = None
) -> Iterator[T]:
    """What the function gives for every picture, in their order, whatever the number of workers.

    Args:
        function: Takes the samples and the number of one; defined in a module, so that it can be sent to a process.
        samples: The pictures.
        workers: Processes that work, fewer for few pictures; 0 is this one.
        progress: See ``Progress``.

    Raises:
        ConfigError: A negative number of workers.
        DataError: A process was killed.
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 or more, not {workers}")
    results = _results(function, samples, min(workers, len(samples) // _FEWEST))
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(done, len(samples))


def _results(function: Callable[[Samples, int], T], samples: Samples, workers: int) -> Iterator[T]:
    if workers == 0:
        for index in range(len(samples)):
            yield _quietly(function, samples, index)
        return
    # Processes that start afresh do not inherit the locks of a parent that has threads.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(function, samples)
    )
    try:
        with pool:
            yield from pool.map(_work, range(len(samples)), chunksize=_AT_ONCE)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads pictures was killed, most often because memory ran out: use fewer workers, "
            "or 0 to see at which file it happens"
        ) from error


def _start(function: Callable[[Samples, int], Any], samples: Samples) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    _job[:] = [function, samples]


def _work(index: int) -> Any:
    function, samples = _job
    return _quietly(function, samples, index)


def _quietly(function: Callable[[Samples, int], T], samples: Samples, index: int) -> T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
        return function(samples, index)
