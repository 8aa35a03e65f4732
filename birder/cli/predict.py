"""``birder predict`` and ``birder embed``: what is in photographs, and what they look like to a network."""

import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.options import model_and_pictures
from birder.cli.progress import Tally, printable, say
from birder.inference.options import Options, Work

if TYPE_CHECKING:
    from rich.console import Console

    from birder.inference.bulk.run import Summary
    from birder.inference.job import Job
    from birder.inference.rows import Row

_FEW = 20  # with --output, so many rows are shown as well
_MANY = 50  # without, so many are shown on a terminal

Paths = Annotated[Sequence[Path], Parameter(consume_multiple=True, negative=())]
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lt=1e6))]


def predict(
    model: str,
    paths: Paths = (),
    *,
    output: Path | None = None,
    options: Annotated[Options, Parameter(name="*")] = Options(),  # noqa: B008
    network: str | None = None,
    restart: Annotated[bool, Parameter(negative=())] = False,
    shard: str | None = None,
    cluster: Literal["ray"] | None = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    interval: Seconds = 10.0,
) -> int:
    """Name the species in photographs.

    Prints a table on a terminal, and otherwise a line for each picture with path, status, reason, label and score, with
    tabs between. A file that cannot be read is a row with the reason.

    With --output, what is done is kept in OUTPUT.journal: the same command after Ctrl-C, a crash or a power cut goes
    on, and later predicts only what is new or has changed.

    A picture has the status unsure when its best score is below --min-score, and not_in_list when a model that birder
    calibrate has prepared finds it too new to show any of its species.

    Exit code: 0 when every picture was classified; 1 when some, or all, could not be read; 2 when nothing could be
    done: wrong use, an unreadable model, no pictures found; 75 when it was stopped and can go on; 130 after Ctrl-C
    without --output.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors; left out, starter, which comes with
            birder: a small one for trying out, which knows 100 birds of North America.
        paths: Pictures, and folders that are searched for pictures.
        output: File for all results, .csv, .jsonl or .parquet.
        options: How to read and to compute, and what to say.
        network: Name of the network, if the model file does not tell.
        restart: Begin anew; forget what an earlier run with this output has done.
        shard: Do one part of the pictures, such as 3/16, the third of sixteen; birder results merge joins them.
        cluster: Compute on all machines of a Ray cluster, on this one if there is none; the results are the same.
        watch: Go on with what arrives in the folders, until Ctrl-C; --output is always complete.
        interval: Seconds between two looks at the folders.
    """
    model, paths = model_and_pictures(model, paths)
    if output is None:
        _only_with_output(restart=restart, shard=shard, cluster=cluster, watch=watch)
        return _print_rows(model, paths, options, network)
    from birder.inference.job import Job

    job = Job(
        model=model,
        paths=tuple(paths),
        output=output,
        options=options,
        network=network,
        part=_part(shard),
        cluster=cluster,
    )
    return _run(job, restart=restart, interval=interval if watch else None)


def embed(
    model: str,
    paths: Paths = (),
    *,
    output: Path,
    options: Annotated[Work, Parameter(name="*")] = Work(),  # noqa: B008
    network: str | None = None,
    restart: Annotated[bool, Parameter(negative=())] = False,
    shard: str | None = None,
    cluster: Literal["ray"] | None = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    interval: Seconds = 10.0,
) -> int:
    """Write the embeddings of photographs: numbers that are near each other where pictures look alike to the network.

    What is done is kept in OUTPUT.journal, so that the same command goes on.

    Exit code: 0 when every picture has its embedding; 1 when some, or all, could not be read; 2 when nothing could be
    done; 75 when it was stopped and can go on.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors; it need not have a classifier. Left out,
            starter, which comes with birder.
        paths: Pictures, and folders that are searched for pictures.
        output: File for all embeddings, .parquet; or .npy, with a table beside it that says which row is which picture.
        options: How to read and to compute.
        network: Name of the network, if the model file does not tell.
        restart: Begin anew; forget what an earlier run with this output has done.
        shard: Do one part of the pictures, such as 3/16, the third of sixteen; birder results merge joins them.
        cluster: Compute on all machines of a Ray cluster, on this one if there is none; the results are the same.
        watch: Go on with what arrives in the folders, until Ctrl-C; --output is always complete.
        interval: Seconds between two looks at the folders.
    """
    model, paths = model_and_pictures(model, paths)
    from birder.inference.job import Job

    job = Job(
        model=model,
        paths=tuple(paths),
        output=output,
        options=Options(**asdict(options)),
        network=network,
        embeddings=True,
        part=_part(shard),
        cluster=cluster,
    )
    return _run(job, restart=restart, interval=interval if watch else None)


def _only_with_output(**given: object) -> None:
    from birder.errors import ConfigError

    for name, value in given.items():
        if value:
            raise ConfigError(f"--{name} needs --output, the file that results go to")


def _part(shard: str | None) -> tuple[int, int] | None:
    from birder.errors import ConfigError

    if shard is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--shard is a part of how many, such as 3/16, from 1/16 to 16/16; not {shard}")
    return int(found[1]), int(found[2])


def _print_rows(model: str, paths: Sequence[Path], options: Options, network: str | None) -> int:
    """Show the rows as they come, and keep none."""
    from rich.console import Console

    from birder.data.folders import find_images
    from birder.errors import DataError
    from birder.inference.predictor import Predictor

    count = _Count(paths)
    tally, shown = Tally(None, Console(stderr=True)), _Shown(Console(), saved=False)
    with Predictor(model, options, network=network) as predictor:
        for row in tally.watch(predictor.stream(find_images(paths)), total=count.known):
            shown.add(row)
    if not tally.pictures:
        raise DataError(f"no pictures in {', '.join(map(printable, paths))}{count.passed_over()}")
    if not shown.finish():
        tally.list_failures()
    say(tally.console, tally.summary() + count.passed_over())
    return 1 if tally.failures else 0


def _run(job: "Job", *, restart: bool, interval: float | None) -> int:
    """Do the job, and say what it came to; ``interval`` is None unless it goes on with what arrives."""
    from rich.console import Console

    count = _Count(job.paths)
    tally, shown = Tally(None, Console(stderr=True)), _Shown(Console(), saved=True)

    def report(rows: "Sequence[Row]", done: int) -> None:
        tally.done = done
        for row in rows:
            tally.note(row)
            shown.add(row)

    if interval is not None:
        say(tally.console, "Ctrl-C ends it")
        job.watch(
            interval_s=interval, restart=restart, report=report, finished=lambda summary: _look(summary, job, tally)
        )
        return 0
    with tally.bar(total=count.known if job.part is None else None):
        summary = job.run(restart=restart, report=report)
    if not shown.finish():
        tally.list_failures()
    speed = f", {tally.speed()}" if summary.predicted else ""
    for sentence in _sentences(summary, job, speed, count.passed_over()):
        say(tally.console, sentence)
    return 1 if summary.statuses.get("error") else 0


def _look(summary: "Summary", job: "Job", tally: Tally) -> None:
    if summary.predicted or summary.changes:
        for sentence in _sentences(summary, job):
            say(tally.console, sentence)
        tally.list_failures()
        tally.listed.clear()
        tally.failures = 0  # of the next look


def _sentences(summary: "Summary", job: "Job", speed: str = "", passed_over: str = "") -> list[str]:
    """What a run came to."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    codes = ", ".join(f"{count} {code}" for code, count in sorted(summary.codes.items()))
    known = f", {summary.kept} of them known from before" if summary.kept else ""
    place = f"results in {printable(job.output)}" if summary.written else f"{printable(job.output)} has them all"
    return [
        *summary.notes,
        *([summary.changes] if summary.changes else []),
        f"{summary.inputs} pictures{known}: {counts}{f' ({codes})' if codes else ''}{speed}",
        f"{place}{passed_over}",
    ]


class _Count:
    """Counts the pictures while the first of them are worked on already."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.others: Counter[str] = Counter()
        self.total: int | None = None
        self._paths = list(paths)
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def known(self) -> int | None:
        """How many there are; None while that is not known."""
        return self.total

    def passed_over(self) -> str:
        """What else lies beside them, in words."""
        self._thread.join()
        kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in self.others.most_common(5))
        return f"; files that are no pictures by their names were passed over: {kinds}" if self.others else ""

    def _count(self) -> None:
        from birder.data.folders import find_images

        self.total = sum(1 for _ in find_images(self._paths, passed_over=self.others))


class _Shown:
    """What the user sees of the rows."""

    def __init__(self, console: "Console", *, saved: bool) -> None:
        self.console = console
        self.limit = _FEW if saved else _MANY
        self.saved = saved
        self.lines = not console.is_terminal and not saved
        self.rows: list[Row] = []
        self.count = 0

    def add(self, row: "Row") -> None:
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
        if not self.console.is_terminal or (self.saved and not all_shown) or not self.rows:
            return False
        print_table(self.console, self.rows)
        if not all_shown:
            say(self.console, f"and {self.count - self.limit} more; --output results.csv keeps them all")
        return all_shown


def print_table(console: "Console", rows: "Sequence[Row]") -> None:
    """Print results as a table: file, best species, score, next best."""
    from rich.table import Table
    from rich.text import Text

    folder = _common_folder([Path(row.path) for row in rows])
    if folder is not None:
        say(console, f"in {printable(folder)}")
    table = Table()
    for column in ("file", "species", "score", "next best"):
        table.add_column(column, overflow="fold")
    for row in rows:
        file = Path(row.path).relative_to(folder) if folder else row.path
        table.add_row(*map(Text, (printable(file), *_cells(row))))
    console.print(table)


def _line(row: "Row") -> list[str]:
    best = [printable(row.labels[0]), f"{row.scores[0]:.6f}"] if row.labels else ["", ""]
    return [printable(row.path), row.status, printable(row.reason), *best]


def _cells(row: "Row") -> tuple[str, str, str]:
    if row.status == "error":
        return (row.reason, "", "")
    if not row.labels:  # embeddings have no names
        return ("", "", "")
    doubt = {"unsure": "unsure: ", "not_in_list": "not in the list; nearest: "}.get(row.status, "")
    next_best = f"{row.labels[1]} {row.scores[1]:.1%}" if len(row.labels) > 1 else ""
    return (doubt + row.labels[0], f"{row.scores[0]:.1%}", next_best)


def _common_folder(paths: list[Path]) -> Path | None:
    """The folder that all lie in, to be named once; None when there is none worth naming."""
    if len({path.is_absolute() for path in paths}) != 1:
        return None
    try:
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on different drives
        return None
    return folder if folder.name else None
