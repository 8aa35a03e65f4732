"""What a run tells: metrics as JSON lines, and progress on the console."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from birder.files import write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Means:
    """Running means, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Count one step's scalars."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.float()
            self._counts[name] = self._counts.get(name, 0) + 1

    def result(self) -> dict[str, float]:
        """The means by name."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


class Logbook:
    """Writes ``metrics.jsonl`` and shows progress."""

    def __init__(self, path: Path, console: "Console | None" = None) -> None:
        """Metrics go to ``path``; progress to the console, None for none."""
        self.path = path
        self.console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0

    def rewind(self, step: int) -> None:
        """Forget what a stopped run wrote after the step from which it goes on."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").split("\n")  # splitlines would also cut at U+2028
            kept = [line for line in lines if _precedes(line, step)]
            write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line."""
        # Bytes of a file name that are no UTF-8 become escapes, which JSON reads back.
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}, ensure_ascii=False) + "\n")

    def say(self, text: str) -> None:
        """Show a line on the console."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, total: int, done: int) -> Iterator[None]:
        """Show a bar while the body runs, where the console is a terminal."""
        if self.console is None or not self.console.is_terminal:
            yield
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[text]}"))
        with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=self.console) as bar:
            self._progress, self._task = bar, bar.add_task("training", total=total, completed=done, text="")
            try:
                yield
                bar.update(self._task, completed=total)  # the last steps may have come too quickly to be shown
            finally:
                self._progress = None

    def show(self, step: int, epoch: str, means: Means, images_per_s: float) -> None:
        """Move the bar; at most five times a second."""
        if self._progress is None or self._task is None or time.monotonic() - self._shown < 0.2:
            return
        self._shown = time.monotonic()
        values = means.result()
        text = f"{images_per_s:.0f} images/s · loss {values['loss']:.3f}"
        if "accuracy" in values:
            text += f" · accuracy {values['accuracy']:.1%}"
        self._progress.update(self._task, completed=step, description=f"epoch {epoch}", text=text)


def _precedes(line: str, step: int) -> bool:
    """Whether a line was written before that step; an epoch's line has the number of the step after it."""
    try:
        entry = json.loads(line)
    except ValueError:  # cut off
        return False
    return entry["step"] <= step if entry["kind"] == "epoch" else entry["step"] < step
