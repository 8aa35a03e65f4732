"""An evaluation as files: ``report.json``, ``per_class.csv``, ``confused.csv`` and ``predictions.csv``.

CSV is written as in ``birder.inference.results``. A number of which nothing is known is an empty cell, in JSON null.
"""

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from birder.errors import ConfigError
from birder.evaluation.classification import Evaluation
from birder.evaluation.metrics import ClassScore, Confusion
from birder.files import atomic, write_text
from birder.inference.predictor import Prediction
from birder.inference.results import cells, header


def write_report(folder: str | Path, evaluation: Evaluation) -> None:
    """Write an evaluation into a folder, which is made if need be; each file is replaced as a whole.

    Raises:
        ConfigError: The folder cannot be made or written to.
    """
    folder = Path(folder)
    check_report(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "report.json", json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
        _write_csv(folder / "per_class.csv", _fields(ClassScore), map(_values, evaluation.classes))
        _write_csv(folder / "confused.csv", _fields(Confusion), map(_values, evaluation.confused))
        top = evaluation.ranked.shape[1]
        _write_csv(folder / "predictions.csv", ["label", *header(top)], _predictions(evaluation, top))
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written: {error.strerror or error}") from error


def check_report(folder: str | Path) -> None:
    """Say now what would keep a report from being written when the work is done.

    Raises:
        ConfigError: There is a file of that name, or a folder above cannot be written to.
    """
    folder = Path(folder)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ConfigError(f"{folder}: a report needs a folder, and {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: the folder {existing} cannot be written to")


def _predictions(evaluation: Evaluation, top: int) -> Iterator[list[str]]:
    names = evaluation.names
    for path, label, ranked, probabilities in zip(
        evaluation.paths, evaluation.labels, evaluation.ranked, evaluation.probabilities, strict=True
    ):
        row = Prediction(
            path=path, names=tuple(names[index] for index in ranked), probabilities=tuple(map(float, probabilities))
        )
        yield [names[label], *cells(row, top)]
    for failure in evaluation.failures:
        yield ["", *cells(failure, top)]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with (
        atomic(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows(rows)


def _fields(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _values(row: ClassScore | Confusion) -> list[str]:
    return [_text(value) for value in dataclasses.astuple(row)]


def _text(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6f}"
