"""An evaluation as files: ``report.json``, ``per_class.csv``, ``confused.csv`` and ``predictions.csv``.

CSV is as ``birder predict`` writes it. A number of which nothing is known is an empty cell, in JSON null.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from birder.data.tables import check_folder, write_csv
from birder.errors import ConfigError
from birder.evaluation.classification import Evaluation
from birder.evaluation.metrics import ClassScore, Confusion
from birder.files import write_text
from birder.inference.results.layout import Layout
from birder.inference.rows import Row


def write_report(folder: str | Path, evaluation: Evaluation) -> None:
    """Write an evaluation into a folder, which is made if need be; each file is replaced as a whole.

    Raises:
        ConfigError: The folder cannot be made or written to.
    """
    folder = Path(folder)
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "report.json", json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
        write_csv(folder / "per_class.csv", _fields(ClassScore), map(_values, evaluation.classes))
        write_csv(folder / "confused.csv", _fields(Confusion), map(_values, evaluation.confused))
        layout = Layout(top=evaluation.ranked.shape[1])
        write_csv(folder / "predictions.csv", ["label", *layout.columns], _predictions(evaluation, layout))
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written: {error.strerror or error}") from error


def _predictions(evaluation: Evaluation, layout: Layout) -> Iterator[list[str]]:
    names = evaluation.names
    for path, label, ranked, probabilities in zip(
        evaluation.paths, evaluation.labels, evaluation.ranked, evaluation.probabilities, strict=True
    ):
        row = Row(
            path=str(path), labels=tuple(names[index] for index in ranked), scores=tuple(map(float, probabilities))
        )
        yield [names[label], *layout.cells(row)]
    for failure in evaluation.failures:
        yield ["", *layout.cells(failure)]


def _fields(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _values(row: ClassScore | Confusion) -> list[str]:
    return [_text(value) for value in dataclasses.astuple(row)]


def _text(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6f}"
