"""``birder report``: evaluations as one page that explains itself."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import Tally, printable, reading_processes, say

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from birder.report.sources import Opened, Source

Sources = Annotated[list[str], Parameter(consume_multiple=True, negative=())]


def report(
    sources: Sources,
    *,
    data: Path,
    output: Path,
    taxonomy: Path | None = None,
    title: str = "",
    network: str | None = None,
    explain: bool = True,
    speed: bool = True,
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
) -> int:
    """Make a page that shows how good a model is: one HTML file, which needs nothing else.

    Two or three models, or tables of results, are compared on the same pictures.

    Exit code: 0 when every picture was classified; 1 when some could not be read; 2 when no report could be made.

    Args:
        sources: One to three: names of published models, model files, .pt or .safetensors, or tables that birder
            predict wrote, .csv, .jsonl or .parquet.
        data: Folder of species/picture.jpg, a CSV file with the columns path and label, or shards.
        output: The page, .html.
        taxonomy: CSV file with the columns label (or species, or name) and family.
        title: The heading of the page.
        network: Name of the network, if the model file does not tell.
        explain: Show what a model looked at, in the pictures of the page.
        speed: Measure how fast a model is on this machine.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.device import resolve_device
    from birder.report.assembled import build_report
    from birder.report.joined import all_names
    from birder.report.sources import open_source

    _check_output(output, sources)
    console, where = Console(stderr=True), resolve_device(device)
    opened = [open_source(given, data, network=network) for given in sources]
    _families(taxonomy, {name for source in opened for name in source.samples.class_to_idx})  # a gap is told now
    asked = [_evaluated(source, batch_size, workers, where, console) for source in opened]
    page = build_report(
        asked,
        title=title,
        place=str(data),
        command=shlex.join(["birder", *sys.argv[1:]]),
        family_of=_families(taxonomy, all_names(source.evaluation for source in asked)),
        explained=explain,
        timed=speed,
        device=where,
        tell=lambda words: say(console, printable(words)),
    )
    _write(output, page, console)
    return int(any(source.evaluation.failures for source in asked))


def _families(taxonomy: Path | None, names: Iterable[str]) -> dict[str, str] | None:
    from birder.data.taxonomy import read_taxonomy

    return None if taxonomy is None else read_taxonomy(taxonomy, names)


def _evaluated(
    opened: "Opened", batch_size: int, workers: int | None, device: "torch.device", console: "Console"
) -> "Source":
    from birder.report.sources import evaluated

    pictures = len(opened.samples)
    tally = Tally(pictures, console)
    say(console, f"evaluating {printable(opened.name)} on {pictures} pictures")
    workers = reading_processes(pictures, batch_size) if workers is None else workers
    source = evaluated(opened, batch_size=batch_size, workers=workers, device=device, watch=tally.watch)
    tally.list_failures()
    return source


def _check_output(output: Path, sources: list[str]) -> None:
    """Say now what would keep the page from being written when the work is done."""
    from birder.data.tables import check_folder
    from birder.errors import ConfigError
    from birder.report.assembled import MOST_SOURCES

    if len(sources) > MOST_SOURCES:
        raise ConfigError(f"a report is about one to {MOST_SOURCES} models or tables of results, not {len(sources)}")
    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output: {output}: a report is a page, such as report.html")
    if output.is_dir():
        raise ConfigError(f"--output: {output} is a folder; a report goes to a file")
    check_folder(output.parent)


def _write(output: Path, page: dict[str, Any], console: "Console") -> None:
    from birder.files import write_text
    from birder.report.render import render

    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, render(page))
    say(console, f"the report is in {printable(output)} ({output.stat().st_size / 2**20:.1f} MiB)")
