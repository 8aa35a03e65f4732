"""Which family a species belongs to."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from birder.data.names import composed
from birder.data.tables import SPECIES_COLUMNS, read_csv
from birder.errors import DataError, suggestion

_SHOWN = 10  # as many names are listed in a message


def read_taxonomy(path: str | Path, names: Iterable[str]) -> dict[str, str]:
    """The family of each species: ``{"Great Tit": "Paridae"}``, in the order of ``names``.

    Args:
        path: A text file in UTF-8 with commas, semicolons or tabs, and with the columns ``family`` and ``label``,
            ``species`` or ``name``. Other columns, and other species, are ignored.
        names: The species, as a model or a data set names them.

    Raises:
        DataError: The file cannot be read or has other columns, a species has two families or none, or some of the
            names are not in it.
    """
    path, found = Path(path), dict[str, str]()
    for line, species, family in _lines(path):
        if found.setdefault(composed(species), composed(family)) != composed(family):
            raise DataError(f"{path}, line {line}: {species} has two families, {found[composed(species)]} and {family}")
    names = list(names)
    missing = [name for name in names if composed(name) not in found]
    if missing:
        lines = [f"  {name}{suggestion(name, found)}" for name in missing[:_SHOWN]]
        more = [f"  and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
        head = f"{path} has no family for {len(missing)} of {len(names)} species; a line each is needed for"
        raise DataError("\n".join([head, *lines, *more]))
    return {name: found[composed(name)] for name in names}


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, species and family of each line."""
    lines = read_csv(path)
    header = next(lines, (1, []))[1]
    columns = [name.strip().lower() for name in header]
    key = next((name for name in SPECIES_COLUMNS if name in columns), None)
    if key is None or "family" not in columns:
        raise DataError(
            f"{path}: the first line must name the columns family and {', '.join(SPECIES_COLUMNS[:-1])} or "
            f"{SPECIES_COLUMNS[-1]}; it is {','.join(header)[:80]!r}"
        )
    for line, cells in lines:
        values = dict(zip(columns, map(str.strip, cells), strict=False))
        species, family = values.get(key, ""), values.get("family", "")
        if cells and not (species and family):
            raise DataError(f"{path}, line {line}: no {'family' if species else key}")
        if cells:
            yield line, species, family
