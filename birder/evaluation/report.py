"""An evaluation as files: ``report.json``, ``per_class.csv``, ``confused.csv`` and ``predictions.csv``.

Where the families of the species are known, there is ``families.csv``, too. CSV is as ``birder predict`` writes it. A
number of which nothing is known is an empty cell, in JSON null.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from birder.data.tables import check_folder, write_csv
from birder.errors import ConfigError
from birder.evaluation.classification import Evaluation, known, plain
from birder.evaluation.metrics import ClassScore, Confusion, FamilyScore, cross_family_errors, per_family
from birder.files import write_text
from birder.inference.results.layout import Layout
from birder.inference.rows import Row


def write_report(folder: str | Path, evaluation: Evaluation, family_of: Mapping[str, str] | None = None) -> None:
    """Write an evaluation into a folder, which is made if need be; each file is replaced as a whole.

    Args:
        folder: Where to.
        evaluation: What was found.
        family_of: The family of every class name; see ``birder.data.taxonomy.read_taxonomy``.

    Raises:
        ConfigError: The folder cannot be made or written to.
        DataError: A class name has no family.
    """
    folder = Path(folder)
    check_folder(folder)
    summary, truth, predicted, names = evaluation.to_dict(), evaluation.labels, evaluation.predicted, evaluation.names
    families = []
    if family_of is not None:
        families = per_family(truth, predicted, names, family_of)
        summary["families"] = [plain(row) for row in families]
        summary["cross_family_errors"] = known(cross_family_errors(truth, predicted, names, family_of))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "report.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        _table(folder / "per_class.csv", ClassScore, evaluation.classes)
        _table(folder / "confused.csv", Confusion, evaluation.confused)
        if family_of is not None:
            _table(folder / "families.csv", FamilyScore, families)
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


def _table(path: Path, kind: type[ClassScore | Confusion], rows: Sequence[ClassScore | Confusion]) -> None:
    columns = [field.name for field in dataclasses.fields(kind)]
    write_csv(path, columns, ([_text(value) for value in dataclasses.astuple(row)] for row in rows))


def _text(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6f}"
