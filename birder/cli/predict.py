"""``birder predict``: the species in photographs."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import Tally, printable, reading_processes, say

if TYPE_CHECKING:
    from rich.console import Console

    from birder.inference.predictor import Failure, Prediction

_FEW = 20  # with --output, so many rows are shown as well
_MANY = 50  # without, so many are shown on a terminal


def predict(
    model: str,
    paths: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    *,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 5,
    output: Path | None = None,
    network: str | None = None,
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
) -> int:
    """Name the species in photographs.

    Prints a table on a terminal, and otherwise a line for each picture with file, species, probability and error, with
    tabs between. A file that cannot be read is a row with the reason.

    Exit code: 0 when every picture was classified; 1 when some, or all, could not be read; 2 when nothing could be
    done: wrong use, an unreadable model, no pictures found.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors.
        paths: Pictures, and folders that are searched for pictures.
        top: Species for each picture.
        output: File for all results, .csv, .jsonl or .parquet.
        network: Name of the network, if the model file does not tell.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from birder.data.folders import find_images
    from birder.device import resolve_device
    from birder.hub.fetch import locate
    from birder.inference.predictor import predict
    from birder.inference.results import check_results
    from birder.model_file import load_model

    if output is not None:
        check_results(output)
    path, published = locate(model)
    net, info = load_model(path, network=network or published)
    total, passed_over = _count(paths)
    workers = reading_processes(total, batch_size) if workers is None else workers
    where = resolve_device(device)
    rows = predict(net, info, find_images(paths), top=top, batch_size=batch_size, workers=workers, device=where)
    tally = _show(rows, total, output, min(top, net.num_classes))
    saved = f"; results in {printable(output)}" if output is not None else ""
    say(tally.console, tally.summary() + saved + passed_over)
    return 1 if tally.failures else 0


def _count(paths: list[Path]) -> tuple[int, str]:
    """How many pictures there are, and what else lies beside them, in words."""
    from birder.data.folders import find_images
    from birder.errors import DataError

    others: Counter[str] = Counter()
    total = sum(1 for _ in find_images(paths, passed_over=others))
    kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common(5))
    passed_over = f"; files that are no pictures by their names were passed over: {kinds}" if others else ""
    if total == 0:
        raise DataError(f"no pictures in {', '.join(map(printable, paths))}{passed_over}")
    return total, passed_over


def _show(rows: "Iterator[Prediction | Failure]", total: int, output: Path | None, top: int) -> Tally:
    """Print the rows as they come, and write them to the output if there is one."""
    from rich.console import Console

    from birder.inference.results import open_results

    tally = Tally(total, Console(stderr=True))
    shown = _Shown(Console(), saved=output is not None)
    with open_results(output, top) if output is not None else nullcontext() as results:
        for row in tally.watch(rows):
            shown.add(row)
            if results is not None:
                results.write([row])
    if not shown.finish():
        tally.list_failures()
    return tally


class _Shown:
    """What the user sees of the rows."""

    def __init__(self, console: "Console", *, saved: bool) -> None:
        self.console = console
        self.limit = _FEW if saved else _MANY
        self.saved = saved
        self.lines = not console.is_terminal and not saved
        self.rows: list[Prediction | Failure] = []
        self.count = 0

    def add(self, row: "Prediction | Failure") -> None:
        """Print the row, or keep it for the table."""
        self.count += 1
        if self.lines:
            print("\t".join(_line(row)))
        elif self.count <= self.limit:
            self.rows.append(row)

    def finish(self) -> bool:
        """Print the table, if there is one; whether all rows were shown."""
        if self.lines:
            return True
        all_shown = self.count <= self.limit
        if not self.console.is_terminal or (self.saved and not all_shown):
            return False
        print_table(self.console, self.rows)
        if not all_shown:
            say(self.console, f"and {self.count - self.limit} more; --output results.csv keeps them all")
        return all_shown


def print_table(console: "Console", rows: "Sequence[Prediction | Failure]") -> None:
    """Print results as a table: file, best species, probability, next best."""
    from rich.table import Table
    from rich.text import Text

    folder = _common_folder([row.path for row in rows])
    if folder is not None:
        say(console, f"in {printable(folder)}")
    table = Table()
    for column in ("file", "species", "probability", "next best"):
        table.add_column(column, overflow="fold")
    for row in rows:
        file = row.path.relative_to(folder) if folder else row.path
        table.add_row(*map(Text, (printable(file), *_cells(row))))
    console.print(table)


def _line(row: "Prediction | Failure") -> list[str]:
    from birder.inference.predictor import Failure

    if isinstance(row, Failure):
        return [printable(row.path), "", "", row.reason]
    return [printable(row.path), printable(row.names[0]), f"{row.probabilities[0]:.6f}", ""]


def _cells(row: "Prediction | Failure") -> tuple[str, str, str]:
    from birder.inference.predictor import Failure

    if isinstance(row, Failure):
        return (f"not read: {row.reason}", "", "")
    next_best = f"{row.names[1]} {row.probabilities[1]:.1%}" if len(row.names) > 1 else ""
    return (row.names[0], f"{row.probabilities[0]:.1%}", next_best)


def _common_folder(paths: list[Path]) -> Path | None:
    """The folder that all lie in, to be named once; None when there is none worth naming."""
    if len({path.is_absolute() for path in paths}) != 1:
        return None
    try:
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on different drives
        return None
    return folder if folder.name else None
