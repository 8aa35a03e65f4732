"""``birder data``: sets of pictures, before they are trained on."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from birder.cli.options import whole_numbers
from birder.cli.progress import LISTED, printable, reading_processes, say
from birder.training.recipe import Augment

if TYPE_CHECKING:
    from rich.console import Console

    from birder.data.check import Alike, Findings
    from birder.data.processes import Progress

app = App(
    name="data",
    help="Check, split, pack and show sets of pictures.",
    config=whole_numbers,
    default_parameter=Parameter(negative_iterable=()),
)

_LINE_EVERY_S = 60.0
_MANY = 1_000_000  # pictures, of which nobody knows the number yet
_KINDS = {
    "unreadable": "files that cannot be read",
    "leaks": "pictures that are in an earlier set as well, or nearly",
    "mixed_labels": "pictures that are in another class as well, or nearly",
    "duplicates": "files that are the same as an earlier one",
    "near_duplicates": "pictures that are nearly the same as an earlier one",
    "odd": "odd pictures",
    "few": "species with few pictures",
    "similar_names": "groups of species with nearly the same name",
    "not_in_first": "species that the first set does not have",
}

Workers = Annotated[int | None, Parameter(validator=Number(gte=0))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]


@app.command
def check(
    sources: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    *,
    output: Path | None = None,
    few: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
    tiny: Annotated[int, Parameter(validator=Number(gte=0))] = 64,
    proportions: Annotated[float, Parameter(validator=Number(gte=1))] = 4.0,
    distance: Annotated[int, Parameter(validator=Number(gte=0, lte=12))] = 8,
    workers: Workers = None,
) -> int:
    """Look for what is wrong with labelled pictures, and for pictures that are in two sets.

    Finds files that cannot be read, pictures that are there twice (the same file, or nearly the same picture: in
    another size, compression or light, or mirrored), in two sets or in two classes, tiny ones, extreme proportions,
    classes with few pictures and with nearly the same names. Nothing is changed.

    Exit code: 0 when nothing was found, 1 when something was, 2 when the check could not be done.

    Args:
        sources: Folders of species/picture.jpg, CSV files with path and label, or shards; the training pictures first.
        output: Folder for report.json, tables, and alike.png, which shows similar pictures side by side.
        few: Fewest pictures a class should have, in all sets together.
        tiny: Fewest pixels the shorter side of a picture should have.
        proportions: How many times as long as wide, or as wide as long, a picture may be.
        distance: Bits of 64 in which nearly the same pictures may differ, 0 to 12; more finds more, and more slowly.
        workers: Processes that read pictures; left out, what suits this machine.
    """
    from birder.data.check import Limits, check
    from birder.data.check_report import write_check
    from birder.data.tables import check_folder

    limits = Limits(few=few, tiny=tiny, proportions=proportions, distance=distance)
    if output is not None:
        check_folder(output)
    with _bar() as progress:
        findings = check(sources, limits=limits, workers=_readers(workers), progress=progress)
    _show_findings(findings)
    if output is not None:
        write_check(output, findings)
    return 1 if any(findings.counts().values()) else 0


@app.command
def split(
    source: Path,
    *,
    output: Path,
    val: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    near_duplicates: Annotated[bool, Parameter(negative=())] = False,
    workers: Workers = None,
) -> None:
    """Divide a set into training, validation and test pictures.

    Writes train.csv, val.csv and, if asked for, test.csv, which name the pictures where they lie. Equal names and
    options give equal tables.

    Args:
        source: Folder of species/picture.jpg, or a CSV file with the columns path and label.
        output: Folder for the tables.
        val: Share of the pictures of each species to validate on.
        test: Share of the pictures of each species to test on at last.
        seed: Another one, another split.
        group: What stays together: a column of the CSV file, such as camera; parent, for what lies in one folder; day,
            for what was taken on one day; or a regular expression on the path, of which the first group counts.
        near_duplicates: Keep pictures together that are nearly the same, which reads every picture.
        workers: Processes that read pictures, where they must be read; left out, what suits this machine.
    """
    from rich.console import Console

    from birder.data.split import split

    reads = near_duplicates or group == "day"
    with _bar() as progress:
        result = split(
            source,
            output,
            val=val,
            test=test,
            seed=seed,
            group=group,
            near_duplicates=near_duplicates,
            workers=_readers(workers) if reads else 0,
            progress=progress,
        )
    console = Console(stderr=True)
    _list_unreadable(console, result.unreadable)
    if result.ungrouped:
        say(console, f"{result.ungrouped} pictures have no {group}, and are not kept together with others")
    for name, missing in result.missing.items():
        if missing:
            say(
                console, f"{name}: no pictures of {len(missing)} species, too few or too large groups: {_some(missing)}"
            )
    for name, indices in result.parts.items():
        say(console, f"{len(indices)} pictures in {printable(output / f'{name}.csv')}")


@app.command
def pack(
    source: Path,
    *,
    output: Path,
    size: Count = 512,
    format: Literal["jpeg", "webp", "png", "keep"] = "jpeg",
    quality: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 90,
    shard_size: Count = 10_000,
    shard_mib: Count = 1000,
    split_name: str = "training",
    workers: Workers = None,
) -> int:
    """Pack pictures into a few large tar files, which are quicker to copy and to read than many small files.

    The tar files have the format of WebDataset. The originals are left as they are.

    Exit code: 0 when every picture was packed, 1 when some could not be read, 2 when nothing could be packed.

    Args:
        source: Folder of species/picture.jpg, or a CSV file with the columns path and label.
        output: Folder for the tar files, empty or not there; failures.csv in it lists what could not be read.
        size: Shorter side of larger pictures afterwards, in pixels.
        format: Of the packed pictures; keep stores the files as they are, of any size.
        quality: Of jpeg and webp, 1 to 100.
        shard_size: Pictures in a tar file at most.
        shard_mib: A tar file is closed when it has so many MiB.
        split_name: What the set is for, a part of the file names.
        workers: Processes that read and encode; left out, what suits this machine.
    """
    from rich.console import Console

    from birder.data.pack import pack

    with _bar() as progress:
        packed = pack(
            source,
            output,
            size=size,
            format=format,
            quality=quality,
            shard_size=shard_size,
            shard_mib=shard_mib,
            split_name=split_name,
            workers=_readers(workers),
            progress=progress,
        )
    console = Console(stderr=True)
    _list_unreadable(console, packed.unreadable)
    say(
        console,
        f"pictures packed: {packed.pictures}; not read: {len(packed.unreadable)}; tar files: {len(packed.shards)}",
    )
    say(console, f"birder train --data {printable(output)} learns from them")
    return 1 if packed.unreadable else 0


@app.command
def show(
    source: Path,
    *,
    pictures: Count = 8,
    variants: Count = 6,
    size: Count = 224,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    output: Path = Path("sheet.png"),
    augment: Annotated[Augment | None, Parameter(name="*")] = None,
) -> None:
    """Show what training pictures look like to the network: each row an original, then what it becomes.

    Args:
        source: Folder of species/picture.jpg, a CSV file with the columns path and label, or shards.
        pictures: Rows of the sheet.
        variants: Variants of each picture.
        size: Height and width that the network takes, in pixels.
        seed: Another one, other pictures and variants.
        output: Picture file for the sheet.
        augment: How pictures are varied.
    """
    from rich.console import Console

    from birder.data.samples import read_samples
    from birder.data.sheet import check_sheet, write_sheet
    from birder.data.variants import variants_sheet

    check_sheet(output)
    options = augment or Augment()
    sheet = variants_sheet(read_samples(source), options, size=size, pictures=pictures, variants=variants, seed=seed)
    write_sheet(output, sheet)
    say(Console(stderr=True), f"{printable(output)} shows {pictures} pictures")


def _readers(workers: int | None) -> int:
    """How many processes read; the library takes fewer for few pictures."""
    return reading_processes(_MANY, 1) if workers is None else workers


@contextmanager
def _bar() -> "Iterator[Progress]":
    """A bar on a terminal, a line now and then elsewhere; gives what is to be called after every picture."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None, speed="", visible=False)
    began = said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        speed = f"{done / max(now - began, 1e-3):.1f} images/s"
        bar.update(task, completed=done, total=total, speed=speed, visible=True)
        if not console.is_terminal and now - said > _LINE_EVERY_S:
            said = now
            say(console, f"{done} of {total} pictures, {speed}")

    with bar:
        yield progress


def _list_unreadable(console: "Console", unreadable: Sequence[tuple[str, str]]) -> None:
    for name, reason in unreadable[:LISTED]:
        say(console, f"not read: {printable(name)}: {printable(reason)}")
    if len(unreadable) > LISTED:
        say(console, f"not read: {len(unreadable) - LISTED} more")


def _show_findings(findings: "Findings") -> None:
    """Print how many findings there are of each kind, and the first of them."""
    from rich.console import Console

    console = Console()
    total = sum(map(len, findings.samples))
    sets = "one set" if len(findings.sources) == 1 else f"{len(findings.sources)} sets"
    say(console, f"{total} pictures of {len(findings.classes)} species in {sets}")
    counts = findings.counts()
    for kind, words in _KINDS.items():
        if counts[kind]:
            say(console, "")
            say(console, f"{words}: {counts[kind]}")
            for line in _lines(findings, kind)[:LISTED]:
                say(console, f"  {line}")
            if counts[kind] > LISTED:
                say(console, f"  and {counts[kind] - LISTED} more; --output FOLDER lists them all")
    if not any(counts.values()):
        say(console, "nothing found")


def _lines(findings: "Findings", kind: str) -> list[str]:
    """The findings of a kind, a line for each."""
    rows = getattr(findings, kind)
    if kind == "unreadable":
        lines = [f"{row.place.path}: {row.reason}" for row in rows]
    elif kind == "odd":
        lines = [f"{row.place.path}: {row.height} x {row.width} pixels, {row.problem}" for row in rows]
    elif kind == "few":
        lines = [f"{row.name}: {' + '.join(map(str, row.pictures))}" for row in rows]
    elif kind == "similar_names":
        lines = [" | ".join(group) for group in rows]
    elif kind == "not_in_first":
        lines = rows
    else:
        lines = [_alike(row) for row in rows]
    return [printable(line) for line in lines]


def _alike(row: "Alike") -> str:
    how = "the same file as" if row.same_file else "the mirror image of" if row.mirrored else "nearly"
    labels = f" ({row.place.label}, {row.other.label})" if row.place.label != row.other.label else ""
    return f"{row.place.path} is {how} {row.other.path}{labels}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(printable, names[:LISTED])) + more
