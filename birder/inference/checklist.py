"""Checklists: only the classes on a list may be named, as no penguin comes to a feeder in Finland.

Shapes: B pictures, K classes of the model, L of them on the list.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from birder.data.names import composed
from birder.data.tables import SPECIES_COLUMNS, delimiter_of
from birder.errors import ConfigError, suggestion

Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """The classes that may occur."""

    labels: tuple[int, ...]
    """Labels of these classes, (L,), lowest first."""
    unknown: tuple[str, ...] = ()
    """Names on the list that are no class of the model."""
    notice: str = ""
    """What a user should know of the unknown ones, in a sentence; empty if there are none."""

    @classmethod
    def from_file(cls, path: str | Path, class_names: Sequence[str]) -> "Checklist":
        """Read a list.

        Args:
            path: Text with one name in a line, where ``#`` begins a comment; or a table, .csv, with a column ``label``,
                ``species`` or ``name``, whose cells are parted by commas, semicolons or tabs. UTF-8.
            class_names: The names of the model's classes, (K,). Case, and the number and kind of spaces, do not matter,
                and an underscore is a space, except where the model has two names that differ in nothing else.

        Raises:
            ConfigError: The file cannot be read, is empty, or has no class of the model.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8, one name in a line") from error
        except OSError as error:
            raise ConfigError(f"{path}: the checklist cannot be read: {error.strerror or error}") from error
        return cls.from_names(_names(path, text), class_names, where=str(path))

    @classmethod
    def from_names(
        cls, names: Iterable[str], class_names: Sequence[str], *, where: str = "the checklist"
    ) -> "Checklist":
        """Find names among the classes of a model; see ``from_file``. ``where`` they are from is for messages."""
        names = list(dict.fromkeys(names))
        if not names:
            raise ConfigError(f"{where} names nothing")
        exactly = {composed(name): label for label, name in enumerate(class_names)}
        loosely: dict[str, list[int]] = {}
        for label, name in enumerate(class_names):
            loosely.setdefault(folded(name), []).append(label)
        found: set[int] = set()
        unknown = []
        for name in names:
            same = exactly.get(composed(name))
            labels = loosely.get(folded(name), []) if same is None else [same]
            found.update(labels)
            unknown += [] if labels else [name]
        notice = _notice(unknown, len(names), class_names, where)
        if not found:
            raise ConfigError(f"{notice}; a checklist must name at least one")
        return cls(labels=tuple(sorted(found)), unknown=tuple(unknown), notice=notice)

    def restrict(self, logits: np.ndarray[Any, Any]) -> Doubles:
        """Probabilities among the classes on the list: (B, K) -> (B, L), float64.

        Args:
            logits: Of all classes, or the logarithms of their probabilities, which give the same. Probabilities
                themselves would not do: where the listed classes have 1e-30 of them, little is left to divide.
        """
        return np.exp(log_softmax(np.asarray(logits)[:, self.labels]))


def log_softmax(logits: np.ndarray[Any, Any]) -> Doubles:
    """Logarithms of the probabilities, along the last axis, in float64."""
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def folded(name: str) -> str:
    """What is left of a name when case, composition of letters, and kind and number of spaces are ignored."""
    return " ".join(composed(name.replace("_", " ")).casefold().split())


def _names(path: Path, text: str) -> list[str]:
    lines = text.splitlines()
    if path.suffix.lower() == ".csv" and lines:
        delimiter = delimiter_of(lines[0])
        try:
            table = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error as error:
            raise ConfigError(f"{path} is no table that can be read ({error})") from error
        columns = [column.strip().lower() for column in table[0]]
        column = next((columns.index(name) for name in SPECIES_COLUMNS if name in columns), None)
        if column is not None:
            return [row[column].strip() for row in table[1:] if len(row) > column and row[column].strip()]
        if len(columns) > 1:
            raise ConfigError(f"{path} has no column {' or '.join(SPECIES_COLUMNS)}, only {', '.join(columns)}")
    return listed(text)


def listed(text: str) -> list[str]:
    """The names in a text with one in a line, where ``#`` begins a comment."""
    bare = (f" {line}".split(" #")[0].strip() for line in text.removeprefix("\ufeff").splitlines())
    return [name for name in bare if name]


def _notice(unknown: list[str], count: int, class_names: Sequence[str], where: str) -> str:
    if not unknown:
        return ""
    shown = "; ".join(name + suggestion(name, class_names).replace("; ", ", ") for name in unknown[:_LISTED])
    more = f"; and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
    return f"{where}: {len(unknown)} of {count} names are no classes of the model: {shown}{more}"
