"""What is shown while a command goes through many pictures: a bar on a terminal, a line now and then elsewhere."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from birder.inference.rows import Row

T = TypeVar("T")

LISTED = 10
"""As many unreadable files are listed; the rest is counted."""
_LINE_EVERY_S = 60.0


class Tally:
    """Counts pictures as they pass, and shows how fast.

    Attributes:
        pictures: How many have passed, with those that could not be read.
        done: How many need not pass any more, with what was known before.
        failures: How many could not be read.
        listed: The first of these.
    """

    def __init__(self, total: int | None, console: "Console") -> None:
        """``total`` pictures will pass, None if that is not known; the bar or the lines go to ``console``."""
        self.total = total
        self.console = console
        self.pictures = self.failures = self.done = 0
        self.listed: list[Row] = []
        self.began = self._said = time.monotonic()
        self._show: Callable[[], None] = lambda: None

    def watch(self, rows: Iterable[T], *, total: Callable[[], int | None] | None = None) -> Iterator[T]:
        """Pass on rows as they come; see ``bar``."""
        with self.bar(total=total):
            for row in rows:
                self.note(row)
                yield row

    @contextmanager
    def bar(self, *, total: Callable[[], int | None] | None = None) -> Iterator[None]:
        """Show what is noted meanwhile; ``total`` is asked for the number of pictures until it is known."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        task = progress.add_task("", total=self.total, speed="")

        def show() -> None:
            self.total = total() if self.total is None and total is not None else self.total
            progress.update(task, completed=max(self.done, self.pictures), total=self.total, speed=self.speed())

        self.began = self._said = time.monotonic()
        self._show = show
        with progress, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
            yield

    def note(self, row: object) -> None:
        """Count one more."""
        from birder.inference.rows import Row

        self.pictures += 1
        if isinstance(row, Row) and row.status == "error":
            self.failures += 1
            self.listed += [row] if self.failures <= LISTED else []
        self._show()
        if not self.console.is_terminal and time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            say(self.console, f"{max(self.done, self.pictures)}{of} pictures, {self.speed()}")

    def speed(self) -> str:
        """How many pictures pass in a second, in words."""
        return f"{self.pictures / max(time.monotonic() - self.began, 1e-3):.1f} images/s"

    def summary(self) -> str:
        """The closing line."""
        pictures = f"{self.pictures} picture{'' if self.pictures == 1 else 's'}"
        return f"{pictures}, {self.failures} could not be read, {self.speed()}"

    def list_failures(self) -> None:
        """Say which files could not be read, and why."""
        for failure in self.listed:
            say(self.console, f"not read: {printable(failure.path)}: {failure.reason}")
        if self.failures > len(self.listed):
            say(self.console, f"not read: {self.failures - len(self.listed)} more")


def say(console: "Console", text: str) -> None:
    """One plain line."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def printable(text: object) -> str:
    """Text that any terminal takes: bytes that are no UTF-8 and control characters become visible escapes."""
    letters = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in letters)


def reading_processes(pictures: int, batch_size: int) -> int:
    """How many processes should read that many pictures: none for a few, else half of the cores, at most 8."""
    from birder.cores import available_cores

    return 0 if pictures <= batch_size else min(8, max(1, available_cores() // 2))
