"""The whole report as plain data, from which the page is made and which a program can read as well.

Classes and pictures are numbers: of ``names``, and places in ``pictures``.
"""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from birder.data.samples import Samples
from birder.data.thinning import thinned
from birder.errors import ConfigError
from birder.report import projection
from birder.report.album import Album, sprite
from birder.report.comparison import comparison
from birder.report.galleries import confused_pairs, galleries
from birder.report.joined import NOBODY, Answers, joined
from birder.report.looked_at import looked_at
from birder.report.measures import calibration, classes_in_use, confusion, costly, families, species, summary
from birder.report.ordering import orders
from birder.report.provenance import provenance, surroundings
from birder.report.sources import Source, told_apart
from birder.report.speed import size, speed

MOST_SOURCES = 3
"""More do not fit beside each other."""
_SIDES = {1: 240, 2: 184, 3: 160}  # pixels of a thumbnail, by the number of sources, so that the page stays small
_TILE, _COLUMNS = 40, 40  # of the pictures on the map


def build_report(
    sources: Sequence[Source],
    *,
    title: str = "",
    place: str = "",
    command: str = "",
    family_of: Mapping[str, str] | None = None,
    explained: bool = True,
    timed: bool = True,
    device: torch.device | str = "cpu",
    tell: Callable[[str], object] = str,
) -> dict[str, Any]:
    """All that the page shows, as lists, dicts, strings and finite numbers; what is not known is None.

    Args:
        sources: One to three, on the same pictures.
        title: The heading; empty is made from the names of the sources.
        place: Where the pictures are, in words.
        command: What was typed to make it.
        family_of: The family of each class; see ``birder.data.taxonomy``.
        explained: Ask models what they looked at, in the pictures that are shown.
        timed: Measure how fast models are on this machine.
        device: Where to do that.
        tell: Called with what is done next, in words.

    Raises:
        ConfigError: No source, or too many.
        DataError: The sources are about different pictures.
    """
    if not 1 <= len(sources) <= MOST_SOURCES:
        raise ConfigError(f"a report is about one to {MOST_SOURCES} models or tables of results, not {len(sources)}")
    samples = sources[0].samples
    names, answers = joined([source.evaluation for source in sources], samples)
    called = told_apart([source.name for source in sources])
    family = None if family_of is None else [family_of.get(name, "") for name in names]
    album = Album(samples)
    tell("measuring")
    parts = [
        {"name": name, **_measured(source, own, names, family_of, family), **_shown(source, own, album)}
        for name, source, own in zip(called, sources, answers, strict=True)
    ]
    compared = comparison(answers, album) if len(sources) > 1 else None
    for part, source, own in zip(parts, sources, answers, strict=True):
        part |= _asked(part, source, own, album, explained=explained, timed=timed, device=device, tell=tell)
    tell("reading the pictures that are shown")
    mapped = sorted({picture for part in parts if part["map"] for picture in part["map"]["pictures"]})
    report = {
        "title": title or " and ".join(called),
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "data": {"place": place, "pictures": len(samples), "species": len(np.unique(samples.labels))},
        "names": names,
        "families": family,
        "sources": parts,
        "comparison": compared,
        "pictures": _pictures(album, answers, place, _SIDES[len(sources)]),
        "sprite": _sprite(samples, mapped),
        "made_by": surroundings(command),
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _measured(
    source: Source,
    answers: Answers,
    names: Sequence[str],
    family_of: Mapping[str, str] | None,
    family: Sequence[str] | None,
) -> dict[str, Any]:
    info = source.model.info if source.model else None
    known = info.calibration if info else None
    return {
        "kind": "results" if source.model is None else "model",
        "temperature": known.temperature if known else None,
        "summary": summary(source.evaluation),
        "species": species(source.evaluation, answers, names),
        "families": None if family_of is None else families(answers, names, family_of),
        "costly": costly(source.evaluation, answers, names, family_of),
        "confusion": confusion(answers),
        "orders": orders(answers, classes_in_use(answers), family),
        "calibration": calibration(source.evaluation, answers),
    }


def _shown(source: Source, answers: Answers, album: Album) -> dict[str, Any]:
    return {"galleries": galleries(source.evaluation, answers, album), "pairs": confused_pairs(answers, album)}


def _asked(
    part: Mapping[str, Any],
    source: Source,
    answers: Answers,
    album: Album,
    *,
    explained: bool,
    timed: bool,
    device: torch.device | str,
    tell: Callable[[str], object],
) -> dict[str, Any]:
    """What only a model can tell."""
    asked: dict[str, Any] = {"map": None, "looked_at": None, "size": None, "speed": None}
    if source.model is not None:
        if source.evaluation.embeddings is not None and len(answers.labels) > 2:
            tell(f"mapping the embeddings of {part['name']}")
            asked["map"] = _map(source, answers)
        if explained:
            tell(f"asking {part['name']} what it looked at")
            places = _places(part)
            found = looked_at(source.model, album.samples, [album.pictures[place] for place in places])
            heat = dict(zip(places, found.pop("heat"), strict=True))
            asked["looked_at"] = {**found, "heat": {str(place): text for place, text in heat.items()}}
        asked["size"] = size(source.model)
        if timed:
            tell(f"timing {part['name']}")
            asked["speed"] = speed(source.model, device)
    return asked | {"provenance": provenance(source)}


def _places(part: Mapping[str, Any]) -> list[int]:
    """The pictures that a source shows in its own galleries and pairs."""
    of_pairs = (place for pair in part["pairs"] for side in pair["sides"] for place in side["shown"])
    return sorted({*of_pairs, *(place for gallery in part["galleries"].values() for place in gallery)})


def _map(source: Source, answers: Answers) -> dict[str, Any]:
    rows = thinned(answers.labels, projection.MOST)
    assert source.evaluation.embeddings is not None, "they were asked for"
    return {
        **projection.projected(source.evaluation.embeddings[rows]),
        "pictures": answers.pictures[rows].tolist(),
        "label": answers.labels[rows].tolist(),
        "predicted": answers.predicted[rows].tolist(),
        "confidence": answers.confidence[rows],
    }


def _sprite(samples: Samples, pictures: list[int]) -> dict[str, Any] | None:
    if not pictures:
        return None
    url = sprite(samples, pictures, tile=_TILE, columns=_COLUMNS)
    return {"url": url, "pictures": pictures, "tile": _TILE, "columns": _COLUMNS}


def _pictures(album: Album, answers: Sequence[Answers], place: str, side: int) -> list[dict[str, Any]]:
    """The pictures of the album with all that is said of them; by a source without an answer, nothing."""
    row_of = [{picture: row for row, picture in enumerate(own.pictures.tolist())} for own in answers]
    rows: list[dict[str, Any]] = []
    for picture, url in zip(album.pictures, album.thumbnails(side), strict=True):
        said = [(own, rows_of[picture]) for own, rows_of in zip(answers, row_of, strict=True) if picture in rows_of]
        rows.append(
            {
                "path": _below(place, album.samples.name(picture)),
                "label": int(said[0][0].labels[said[0][1]]),
                "answers": [_said(own, rows_of.get(picture)) for own, rows_of in zip(answers, row_of, strict=True)],
                "url": url,
            }
        )
    return rows


def _said(answers: Answers, row: int | None) -> list[tuple[int, float]]:
    if row is None:
        return []
    ranked = zip(answers.ranked[row].tolist(), answers.probabilities[row].tolist(), strict=True)
    return [(label, probability) for label, probability in ranked if label != NOBODY]


def _below(place: str, path: str) -> str:
    """The path without that of the data, which the head of the page has already."""
    return str(Path(path).relative_to(place)) if place and Path(path).is_relative_to(place) else path


def _plain(value: Any) -> Any:
    """The same in what JSON has; five significant digits are more than anyone reads."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
