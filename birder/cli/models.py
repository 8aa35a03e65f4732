"""``birder models``: the published models, their files, and what is known of them."""

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from birder.catalogue import Pretrained, Task, catalogue, find, list_pretrained_models
from birder.cli.progress import printable
from birder.errors import UnknownName, suggestion

app = App(name="models")

_SHOWN_CLASSES = 8


@app.default
def models(
    pattern: str = "*",
    *,
    network: str = "*",
    region: str = "*",
    size: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    task: Task | None = None,
    format: Literal["table", "json"] = "table",
) -> None:
    """List the published models.

    Prints a table on a terminal, and otherwise a line for each model with name, network, size, region, MiB, where its
    file lies on this computer, and why this version of birder cannot load it, with tabs between.

    Args:
        pattern: Names to list, with * for any letters.
        network: Only models of this network, with * for any letters.
        region: Only models of this region or data set, such as eu-common, with * for any letters.
        size: Only models for pictures of this height or width.
        task: Only models for this task.
        format: How to print: table, or json.
    """
    entries = catalogue()
    chosen = [
        entries[name]
        for name in list_pretrained_models(pattern.lower(), task)
        if fnmatchcase(entries[name].network, network.lower())
        and fnmatchcase(entries[name].region, region.lower())
        and size in (None, *entries[name].resolution)
    ]
    if not chosen:
        asked = ", ".join(repr(word) for word in (pattern, network, region) if word != "*") or "these options"
        regions, networks = ({getattr(entry, field) for entry in entries.values()} for field in ("region", "network"))
        hint = suggestion(pattern, entries) or suggestion(network, networks) or suggestion(region, regions)
        raise UnknownName(f"no published model fits {asked}{hint}")
    if format == "json":
        print(json.dumps([_facts(entry) for entry in chosen], indent=1))
    else:
        _show(chosen)


@app.command
def info(name: str, *, format: Literal["table", "json"] = "table") -> None:
    """Show what is known of a published model.

    Args:
        name: Its name, as birder models lists it.
        format: How to print: table, or json.
    """
    entry = find(name)
    facts = _facts(entry) | _contents(entry)
    if format == "json":
        print(json.dumps(facts, indent=1))
        return
    names = facts.pop("classes", [])
    facts.pop("superseded")
    facts["size"] = "{} x {}".format(*entry.resolution)
    facts["licence"] = facts["licence"] or "not in the catalogue; see the page of the model"
    facts["local"] = facts["local"] or f"no; birder models download {name}"
    facts["supported"] = "yes" if not entry.obstacle else f"no: {facts.pop('obstacle')}"
    if facts["parameters"]:
        facts["parameters"] = "{count:,} with {num_classes} classes".format(**facts["parameters"])
    if names:
        more = f", … ({len(names)}; --format json has all)" if len(names) > _SHOWN_CLASSES else ""
        facts["classes"] = ", ".join(names[:_SHOWN_CLASSES]) + more
    for file_format, file in facts.pop("formats").items():
        facts[file_format] = f"{file['mib']:.1f} MiB, {file['address']}\nsha256 {file['sha256']}"
    for label, value in facts.items():
        if value not in (None, ""):
            lines = str(value).splitlines()
            print(f"{label:<11} {printable(lines[0])}", *(f"{'':<11} {line}" for line in lines[1:]), sep="\n")


@app.command
def download(
    names: Annotated[list[str], Parameter(consume_multiple=True, negative=())],
    *,
    to: Path | None = None,
    file_format: str | None = None,
) -> None:
    """Download published models, and print where each file lies.

    A download that was stopped goes on where it stopped. Files that are there already are checked.

    Args:
        names: Names of models, as birder models lists them.
        to: Folder for the files; the cache when left out.
        file_format: Form of the files, such as pt or safetensors; left out, the one that was published.
    """
    from birder.hub.fetch import fetch

    for entry in [find(name) for name in names]:
        form = file_format or entry.default_format
        dst = to / entry.file_name(form) if to is not None else None
        print(printable(fetch(entry, form, dst=dst)), flush=True)


def _facts(entry: Pretrained) -> dict[str, Any]:
    """What the catalogue says, and where the file lies."""
    local = _local(entry)
    return {
        "name": entry.name,
        "network": entry.network,
        "task": entry.task,
        "size": entry.resolution,
        "region": entry.region,
        "tag": entry.tag,
        "epoch": entry.epoch,
        "licence": entry.licence,
        "formats": {
            name: {"address": entry.address(name), "mib": file.file_size, "sha256": file.sha256}
            for name, file in entry.formats.items()
        },
        "superseded": entry.superseded,
        "local": str(local) if local else None,
        "supported": not entry.obstacle,
        "obstacle": entry.obstacle,
    }


def _contents(entry: Pretrained) -> dict[str, Any]:
    """How many parameters, and the classes, as the file says; before it is there, what is known of the network."""
    from birder.gallery import NUM_CLASSES, gallery

    local = _local(entry)
    if local is not None and not entry.obstacle:
        from birder.model_file import load_model

        net, info = load_model(local, network=entry.network)
        classes = sorted(info.class_to_idx, key=lambda name: info.class_to_idx[name])
        count = sum(weight.numel() for weight in net.parameters())
        return {"parameters": {"count": count, "num_classes": net.num_classes}, "classes": classes}
    figures = gallery().get(entry.network)
    return {"parameters": {"count": figures.parameters, "num_classes": NUM_CLASSES} if figures else None}


def _local(entry: Pretrained) -> Path | None:
    from birder.hub.fetch import local_file

    return next((path for name in entry.formats if (path := local_file(entry, name))), None)


def _show(entries: list[Pretrained]) -> None:
    """Print a table on a terminal, and lines elsewhere."""
    rows = [(entry, _local(entry)) for entry in entries]
    if not _is_terminal():
        for entry, local in rows:
            cells = (*_cells(entry), printable(local) if local else "", entry.obstacle)
            print("\t".join(cells))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "network", "size", "region", "MiB", "local", "")
    for entry, local in rows:
        style = "dim" if entry.obstacle else None
        note = "not supported yet" if entry.obstacle else ""
        table.add_row(*_cells(entry), "yes" if local else "", note, style=style)
    Console().print(table)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _cells(entry: Pretrained) -> tuple[str, ...]:
    mib = max(file.file_size for file in entry.formats.values())
    return entry.name, entry.network, "{} x {}".format(*entry.resolution), entry.region, f"{mib:.1f}"
