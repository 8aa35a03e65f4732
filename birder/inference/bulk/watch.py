"""A run that goes on: what arrives in a folder is predicted when it is whole, until someone ends it."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from birder.inference.bulk.inputs import NO_STAMP, Stamp, keys, stamp_of
from birder.inference.bulk.journal import Journal, open_journal
from birder.inference.bulk.known import UNKNOWN
from birder.inference.bulk.run import Stream, Summary, Target, locked, one_round
from birder.inference.rows import Row

REST_S = 2.0
"""A file that has not changed for so long is taken to be whole."""


def watch(
    find: Callable[[], Iterable[str]],
    stream: Stream,
    target: Target,
    *,
    identity: Mapping[str, Any],
    batch_size: int | Callable[[], int],
    interval_s: float = 10.0,
    restart: bool = False,
    report: Callable[[Sequence[Row], int], None] = lambda rows, done: None,
    finished: Callable[[Summary], None] = lambda summary: None,
) -> None:
    """Look for inputs again and again; it ends, as if it were done, by Ctrl-C or SIGTERM.

    The output is written anew, atomically, after each look that found something new, changed or gone. A file that is
    being written waits for the next look; so does its row, if it had one. When the run is ended, what is in the journal
    and not in the output yet gets there with the next start.

    Args:
        find: The inputs there are now, in an order that does not change.
        stream: Called once for each look that found something to predict, so it should keep its network.
        target: See ``run``, as for what is not listed here.
        identity: The same.
        batch_size: The same.
        interval_s: Seconds from the end of one look to the beginning of the next.
        restart: Forget what was done before.
        report: See ``run``.
        finished: Called with what each look came to.

    Raises:
        ConfigError: As in ``run``.
    """
    with locked(target), open_journal(target.journal, identity, restart=restart) as journal:
        whole = _Whole(journal)
        try:
            with _ended_by_signals():
                while True:
                    finished(one_round(whole(find()), stream, target, journal, batch_size=batch_size, report=report))
                    time.sleep(interval_s)
        except KeyboardInterrupt:
            return


class _Whole:
    """Lets those files through that nobody is writing to any more."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Of the files that were held back: what they looked like, and since when they have.
        self._held: dict[str, tuple[Stamp, float]] = {}

    def __call__(self, paths: Iterable[str]) -> Iterator[str]:
        before, self._held = self._held, {}
        for path in paths:
            stamp, now = stamp_of(path), time.monotonic()
            seen, since = before.get(path, (stamp, now))
            if seen != stamp:
                since = now
            rests = seen == stamp and time.time() - stamp[1] / 1e9 >= REST_S
            # Clocks differ between machines, so a file from the future is taken when it has stayed as it is.
            if stamp == NO_STAMP or rests or now - since >= REST_S or self._is_known(path, stamp):
                yield path
            else:
                self._held[path] = stamp, since

    def _is_known(self, path: str, stamp: Stamp) -> bool:
        return bool((self._journal.known.find(*keys([path], [stamp])) != UNKNOWN).all())


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does; only the main thread of a program can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Ctrl-C is ignored by what a script starts in the background, but who sends it there means it.
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # What was not set from Python is told as None, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
