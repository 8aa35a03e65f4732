"""Being told to stop: the step is finished, a checkpoint is written, and the process ends with its own exit code."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Ctrl-C, the polite end, and the end of the terminal, such as a connection that is lost."""


class Interrupt:
    """Whether someone has asked this process to stop.

    Attributes:
        asked: Whether, so far.
    """

    def __init__(self) -> None:
        """Nobody has."""
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals while the body runs; a second Ctrl-C ends it at once.

        The end of the terminal is not heard where the process was told to ignore it, as by nohup.

        Only the main thread of a program can listen; in another the body just runs.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Ctrl-C is also ignored by what a script starts in the background, where nobody has asked for it.
        survives = {number for number in SIGNALS[2:] if signal.getsignal(number) is signal.SIG_IGN}
        heard = [number for number in SIGNALS if number not in survives]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                # What was not set from Python is told as None, and cannot be set again.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
