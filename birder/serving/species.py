"""Names of species in other languages, from a table as people have them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birder.data.names import composed
from birder.data.tables import SPECIES_COLUMNS, read_csv
from birder.errors import DataError
from birder.inference.checklist import folded

_SHOWN = 5  # as many names are listed in a notice

# Language, script, region and variants of BCP 47. Languages of more than three letters do not exist so far, and other
# columns of a table, such as family, would be taken for them.
_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?P<variants>(?:-(?:[a-z0-9]{5,8}|\d[a-z0-9]{3}))*)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class SpeciesNames:
    """What the species of a model are called."""

    languages: tuple[str, ...] = ()
    """Tags of the languages (BCP 47, such as ``de`` or ``pt-BR``), in the order of the table's columns."""
    of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The name of a class, as the model has it, -> language -> name; nothing where the table has no name."""
    notice: str = ""
    """What a user should know of species without names, and of columns that were passed over; empty if there is
    nothing."""


def read_names(path: str | Path, class_names: Sequence[str]) -> SpeciesNames:
    """Read names in other languages.

    Args:
        path: A text file in UTF-8 with commas, semicolons or tabs; a column ``label``, ``species`` or ``name`` with the
            species as the model names them, and one column for each language, headed by its tag: ``de``, ``pt-BR``.
            Other columns, and other species, are passed over; an empty cell is no name.
        class_names: The names of the model's classes. Case, and the number and kind of spaces, do not matter, and an
            underscore is a space, except where the table has the name exactly as the model has it.

    Raises:
        DataError: The file cannot be read, has other columns, gives a species two names in one language, or names no
            species of the model.
    """
    path = Path(path)
    lines = read_csv(path)
    table = _Columns(path, next(lines, (1, []))[1])
    exactly, loosely = {composed(name) for name in class_names}, {folded(name) for name in class_names}
    exact: dict[str, dict[str, str]] = {}
    loose: dict[str, dict[str, str]] = {}
    for line, cells in lines:
        species, names = table.names(line, cells)
        if species in exactly:
            _add(exact.setdefault(species, {}), names, f"{path}, line {line}: {species}")
        elif folded(species) in loosely:
            _add(loose.setdefault(folded(species), {}), names, f"{path}, line {line}: {species}")
    of = {name: exact.get(composed(name)) or loose.get(folded(name), {}) for name in class_names}
    return SpeciesNames(
        languages=table.languages,
        of={name: names for name, names in of.items() if names},
        notice=_notice(path, [name for name, names in of.items() if not names], len(of), table.passed_over),
    )


class _Columns:
    """What each column of a table is."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.path, self.width = path, len(header)
        names = [cell.strip().lower() for cell in header]
        key = next((name for name in SPECIES_COLUMNS if name in names), None)
        tags = {place: _tag(name) for place, name in enumerate(names)}
        self.tags = {place: tag for place, tag in tags.items() if tag}
        self.languages = tuple(self.tags.values())
        if key is None or not self.tags:
            raise DataError(
                f"{path}: the first line must name a column {', '.join(SPECIES_COLUMNS[:-1])} or {SPECIES_COLUMNS[-1]} "
                f"and one for each language by its tag, such as de or pt-BR; it is {', '.join(header)[:80]!r}"
            )
        self.species = names.index(key)
        self.passed_over = [header[place].strip() for place in tags if place not in {*self.tags, self.species}]
        double = [tag for tag in dict.fromkeys(self.languages) if self.languages.count(tag) > 1]
        if double:
            raise DataError(f"{path} has two columns of names in {', '.join(double)}; leave one of them")

    def names(self, line: int, cells: Sequence[str]) -> tuple[str, dict[str, str]]:
        """The species of a line, and language -> name where there is one."""
        if any(cell.strip() for cell in cells[self.width :]):
            raise DataError(
                f"{self.path}, line {line} has {len(cells)} cells, and the first line {self.width}; a name with a "
                "comma needs quotes"
            )
        texts = {place: composed(cell.strip()) for place, cell in enumerate(cells)}
        names = {tag: texts[place] for place, tag in self.tags.items() if texts.get(place)}
        return texts.get(self.species, ""), names


def _tag(heading: str) -> str | None:
    """A heading as a tag in its usual form, ``pt-BR`` for ``pt_br``; None if it is none."""
    found = _TAG.fullmatch(heading.replace("_", "-"))
    if not found:
        return None
    script, region = found["script"], found["region"]
    parts = [found["language"].lower(), script and script.title(), region and region.upper()]
    return "-".join(part for part in parts if part) + found["variants"].lower()


def _add(names: dict[str, str], more: Mapping[str, str], where: str) -> None:
    """Take in what another line says of a species."""
    for language, name in more.items():
        if names.setdefault(language, name) != name:
            raise DataError(f"{where} has two names in {language}, {names[language]} and {name}; leave one of them")


def _notice(path: Path, missing: Sequence[str], count: int, passed_over: Sequence[str]) -> str:
    if missing and len(missing) == count:
        raise DataError(
            f"{path} has no name for any species of the model, such as {missing[0]}: its column "
            f"{', '.join(SPECIES_COLUMNS[:-1])} or {SPECIES_COLUMNS[-1]} must have the names that the model has"
        )
    sentences = []
    if missing:
        more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        sentences.append(
            f"{path} has no names for {len(missing)} of {count} species: {'; '.join(missing[:_SHOWN])}{more}"
        )
    if passed_over:
        sentences.append(f"{path}: columns that are no tag of a language were passed over: {', '.join(passed_over)}")
    return "; ".join(sentences)
