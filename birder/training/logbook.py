"""What a run tells: metrics as JSON lines and for TensorBoard, and progress on the console."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from birder.distributed import collected
from birder.errors import need
from birder.files import write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Means:
    """Means over pictures, kept on the device so that no step waits for them.

    Attributes:
        pictures: How many this process has counted.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.pictures = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor], pictures: int = 1) -> None:
        """Count one step's scalars, which are means over so many pictures."""
        self.pictures += pictures
        for name, value in values.items():
            total = value.double() * pictures
            # Sums that were loaded may be elsewhere than what is added.
            self._sums[name] = self._sums[name].to(total.device) + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + pictures

    def result(self) -> dict[str, float]:
        """The means of this process, by name."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items() if self._counts[name]}

    def joined(self) -> "Means":
        """Those of all processes together, which must all ask for them."""
        whole = Means()
        for state in collected(self.state_dict()):
            whole.pictures += state["pictures"]
            for name, total in state["sums"].items():
                whole._sums[name] = whole._sums.get(name, 0.0) + total.cpu()
                whole._counts[name] = whole._counts.get(name, 0) + state["counts"][name]
        return whole

    def over_processes(self) -> dict[str, float]:
        """The means of all processes, which must all ask for them; empty where none has counted a picture."""
        return self.joined().result()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on needs."""
        return {"pictures": self.pictures, "sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.pictures = state["pictures"]
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


class Logbook:
    """Writes ``metrics.jsonl`` and shows progress."""

    def __init__(self, path: Path, console: "Console | None" = None, *, tensorboard: bool = False) -> None:
        """Metrics go to ``path``; progress to the console, None for none.

        Args:
            path: The file; a new line of it is written at once.
            console: Where progress is shown.
            tensorboard: Write the numbers for TensorBoard as well, into the folder ``tensorboard`` beside the file.

        Raises:
            MissingPackage: TensorBoard is not installed.
        """
        self.path = path
        self.console = console
        self.tensorboard = tensorboard
        if tensorboard:
            need("tensorboard", extra="tensorboard", purpose="run.tensorboard")
        self._board: Any = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0

    def rewind(self, step: int, epochs: int) -> None:
        """Forget what a stopped run wrote after the step from which it goes on, and after so many epochs."""
        kept = []
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").split(
                "\n"
            )  # splitlines cuts at U+2028, too
            kept = [line for line in lines if _precedes(line, step, epochs)]
            write_text(self.path, "".join(f"{line}\n" for line in kept))
        if self.tensorboard:
            self._open_board(step)
            for line in kept:
                entry = json.loads(line)
                if entry["step"] == step:  # these were hidden with all that came later
                    self._draw(**entry)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; a disk that is full costs the line, which is said."""
        # Bytes of a file name that are no UTF-8 become escapes, which JSON reads back.
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}, ensure_ascii=False) + "\n")
        except OSError as error:  # the run is worth more than a line of it
            self.say(f"{self.path} could not be written: {error.strerror or error}")
        if self.tensorboard:
            self._draw(kind, step, **values)

    def _open_board(self, step: int | None = None) -> None:
        """Begin a file for TensorBoard, which hides what older ones have of that step and later."""
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.path.with_name("tensorboard")), purge_step=step)

    def _draw(self, kind: str, step: int, **values: Any) -> None:
        if self._board is None:
            self._open_board()
        for name, value in values.items():
            if isinstance(value, int | float) and kind in ("steps", "epoch"):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self._board.flush()

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

    def show(self, step: int, epoch: str, means: Means, speed: dict[str, float]) -> None:
        """Move the bar; at most five times a second.

        Args:
            step: Steps that are done.
            epoch: Which pass this is.
            means: Losses so far.
            speed: ``lr``, ``images_per_s``, ``data_wait`` (0-1) and ``memory_mib``.
        """
        if self._progress is None or self._task is None or time.monotonic() - self._shown < 0.2:
            return
        self._shown = time.monotonic()
        values = means.result()
        parts = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        parts += [f"accuracy {values['accuracy']:.1%}"] if "accuracy" in values else []
        parts += [
            f"rate {speed['lr']:.1e}",
            f"{speed['images_per_s']:.0f} images/s",
            f"waiting {speed['data_wait']:.0%}",
        ]
        parts += [f"{speed['memory_mib'] / 1024:.1f} GiB"]
        self._progress.update(self._task, completed=step, description=f"epoch {epoch}", text=" · ".join(parts))


def summary(epoch: int, epochs: int, metrics: dict[str, float]) -> str:
    """What is said after an epoch."""
    parts = [f"epoch {epoch}/{epochs}", f"loss {metrics['loss']:.3f}"]
    if "accuracy" in metrics:
        parts.append(f"accuracy {metrics['accuracy']:.1%}")
    if "val_top1" in metrics:
        parts.append(f"validation {metrics['val_top1']:.1%}")
    if "val_knn" in metrics:
        parts.append(f"neighbours {metrics['val_knn']:.1%}")
    if "rank" in metrics:
        parts.append(f"rank {metrics['rank']:.1f}")
    parts += [f"{metrics['images_per_s']:.0f} images/s", f"waiting for data {metrics['data_wait']:.0%}"]
    return " · ".join(parts)


def _precedes(line: str, step: int, epochs: int) -> bool:
    """Whether a line was written before that step; lines of several steps have the number of the step after them."""
    try:
        entry = json.loads(line)
        if entry["kind"] == "epoch":
            return bool(entry["epoch"] <= epochs)
        return bool(entry["step"] <= step if entry["kind"] == "steps" else entry["step"] < step)
    except (ValueError, LookupError, TypeError):  # cut off, or no entry of ours
        return False
