r"""The findings of ``check`` as files: ``report.json``, a table for each kind, and a sheet of pictures that are alike.

Tables have one row for each finding, and are written even when there is none. Bytes of a file name that are no UTF-8
are written as ``\udcXX``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from birder.data.check import Alike, Findings, Place
from birder.data.sheet import Row, sheet_of_rows
from birder.data.tables import write_csv
from birder.errors import ConfigError, ImageError
from birder.files import atomic, write_text

MOST_SHOWN = 60
"""Pairs on the sheet."""

_PLACE = ["source", "path", "label"]
_ALIKE = [*_PLACE, "other_source", "other_path", "other_label", "same_file", "bits", "similarity", "mirrored"]
_Table = tuple[Sequence[str], list[list[str]]]


def write_check(folder: str | Path, findings: Findings) -> None:
    """Write what was found into a folder, which is made if need be; each file is replaced as a whole.

    Raises:
        ConfigError: The folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables = _tables(findings)
        for name, (columns, rows) in tables.items():
            write_csv(folder / f"{name}.csv", columns, rows)
        report = {"sources": findings.sources, "pictures": [len(part) for part in findings.samples]}
        counts = findings.counts()
        found = {name: _objects(table) for name, table in tables.items()}
        text = json.dumps({**report, "counts": counts, **found}, indent=1, ensure_ascii=False)
        write_text(folder / "report.json", text + "\n")
        _write_sheet(folder / "alike.png", findings)
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written: {error.strerror or error}") from error


def _tables(findings: Findings) -> dict[str, _Table]:
    """Columns and rows of each table, by its name."""
    alike = ("duplicates", "near_duplicates", "leaks", "mixed_labels")
    missing = set(findings.not_in_first)
    few = {row.name for row in findings.few}
    similar = {name: "; ".join(group) for group in findings.similar_names for name in group}
    classes = [
        [
            row.name,
            *map(str, row.pictures),
            _yes(row.name in few),
            _yes(row.name in missing),
            similar.get(row.name, ""),
        ]
        for row in findings.classes
    ]
    return {
        "unreadable": ([*_PLACE, "reason"], [[*_cells(row.place), row.reason] for row in findings.unreadable]),
        **{name: (_ALIKE, [_alike_cells(row) for row in getattr(findings, name)]) for name in alike},
        "odd": (
            [*_PLACE, "height", "width", "problem"],
            [[*_cells(row.place), str(row.height), str(row.width), row.problem] for row in findings.odd],
        ),
        "classes": (["label", *findings.sources, "few", "not_in_first", "similar_names"], classes),
    }


def _objects(table: _Table) -> list[dict[str, str]]:
    columns, rows = table
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _cells(place: Place) -> list[str]:
    return [place.source, place.path, place.label]


def _alike_cells(row: Alike) -> list[str]:
    numbers = [_yes(row.same_file), str(row.bits), f"{row.similarity:.4f}", _yes(row.mirrored)]
    return [*_cells(row.place), *_cells(row.other), *numbers]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _write_sheet(path: Path, findings: Findings) -> None:
    """Show pictures that are alike side by side, the gravest first; without any, there is no sheet."""
    kinds = {"leak": findings.leaks, "mixed labels": findings.mixed_labels, "near duplicate": findings.near_duplicates}
    # The least similar say whether the search went too far.
    pairs = [(kind, row) for kind, rows in kinds.items() for row in sorted(rows, key=lambda row: -row.bits)]
    seen: set[tuple[int, int]] = set()
    rows: list[Row] = []
    for kind, pair in pairs:
        if len(rows) == MOST_SHOWN:
            break
        if pair.numbers not in seen:
            seen.add(pair.numbers)
            rows.append(_sheet_row(kind, pair, findings))
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier check
        return
    with atomic(path) as temporary:
        sheet_of_rows(rows).save(temporary)


def _sheet_row(kind: str, pair: Alike, findings: Findings) -> Row:
    words = [kind, "same file" if pair.same_file else f"{pair.bits} bits, similarity {pair.similarity:.2f}"]
    return Row(
        title=", ".join([*words, *(["mirrored"] if pair.mirrored else [])]),
        pictures=[_picture(findings, number) for number in reversed(pair.numbers)],
        captions=[f"{place.path} ({place.label})" for place in (pair.other, pair.place)],
    )


def _picture(findings: Findings, number: int) -> Image.Image:
    for part in findings.samples:
        if number < len(part):
            try:
                return part.read(number)
            except ImageError:  # it could be read a moment ago
                break
        number -= len(part)
    return Image.new("RGB", (1, 1))
