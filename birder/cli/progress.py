"""What is shown while a command goes through many pictures: a bar on a terminal, a line now and then elsewhere."""

import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from birder.inference.predictor import Failure

T = TypeVar("T")

LISTED = 10
"""As many unreadable files are listed; the rest is counted."""
_LINE_EVERY_S = 60.0


class Tally:
    """Counts pictures as they pass, and shows how fast.

    Attributes:
        pictures: How many have passed, with those that could not be read.
        failures: How many could not be read.
        listed: The first of these.
    """

    def __init__(self, total: int, console: "Console") -> None:
        """``total`` pictures will pass; the bar or the lines go to ``console``."""
        self.total = total
        self.console = console
        self.pictures = self.failures = 0
        self.listed: list[Failure] = []
        self.began = time.monotonic()

    def watch(self, rows: Iterable[T]) -> Iterator[T]:
        """Pass on rows as they come."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from birder.inference.predictor import Failure

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        task = bar.add_task("", total=self.total, speed="")
        self.began = said = time.monotonic()
        with bar, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
            for row in rows:
                self.pictures += 1
                if isinstance(row, Failure):
                    self.failures += 1
                    self.listed += [row] if self.failures <= LISTED else []
                bar.update(task, advance=1, speed=self.speed())
                if not self.console.is_terminal and time.monotonic() - said > _LINE_EVERY_S:
                    said = time.monotonic()
                    say(self.console, f"{self.pictures} of {self.total} pictures, {self.speed()}")
                yield row

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
