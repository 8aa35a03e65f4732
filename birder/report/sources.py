"""What a report is about: models, and tables of results, on the same labelled pictures."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from birder.data.samples import Samples, read_samples
from birder.errors import DataError
from birder.evaluation.classification import Evaluation, evaluate
from birder.evaluation.from_results import evaluation_of_results
from birder.hub.fetch import locate
from birder.inference.results.formats import ARRAY, TABLES
from birder.inference.rows import Row
from birder.inference.scores import Scores
from birder.model_file import ModelInfo, load_model
from birder.networks.base import Network

Watch = Callable[[Iterator[Scores | Row]], Iterable[Scores | Row]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that can be asked again: what it looked at, and how fast it is."""

    path: Path
    """The model file."""
    network: Network
    """In evaluation mode."""
    info: ModelInfo
    """What the file says."""
    named: str | None = None
    """Name of the network that was given, by who asked or the catalogue."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model or a table of results, before it is asked."""

    name: str
    """What it is called in the report."""
    samples: Samples
    """The pictures that it is asked about, with labels in its own numbers."""
    model: Model | None = None
    """The model; None of a table of results."""
    table: Path | None = None
    """The table of results; None of a model."""


@dataclass(frozen=True, kw_only=True)
class Source(Opened):
    """What a model or a table says of the pictures."""

    evaluation: Evaluation
    """How it did."""


def open_source(given: str, data: Path, *, network: str | None = None) -> Opened:
    """Load a model, or find a table of results, and see which labelled pictures there are for it.

    Args:
        given: Name of a published model, a model file, or a table that ``birder predict`` wrote: .csv, .jsonl or
            .parquet.
        data: Labelled pictures; see ``read_samples``.
        network: Name of the network, if the model file does not tell.

    Raises:
        BirderError: The model cannot be loaded, the pictures cannot be found, or they are of other classes.
    """
    if is_table(given):
        if not Path(given).is_file():
            raise DataError(f"{given}: no such file")
        return Opened(name=Path(given).name, samples=read_samples(data), table=Path(given))
    path, published = locate(given)
    net, info = load_model(path, network=network or published)
    return Opened(
        name=path.name if published is None else given,
        samples=read_samples(data, info.class_to_idx),
        model=Model(path=path, network=net, info=info, named=network or published),
    )


def evaluated(
    opened: Opened,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    watch: Watch = iter,
) -> Source:
    """Ask a model about the pictures, or compare a table with their labels.

    Args:
        opened: What ``open_source`` gave.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead.
        device: Where to compute; None is the CPU.
        watch: Passes on what the network says of the single pictures, to show progress.

    Raises:
        BirderError: See ``evaluate`` and ``evaluation_of_results``.
    """
    if opened.model is None:
        assert opened.table is not None, "a source is a model or a table"
        evaluation = evaluation_of_results(opened.table, opened.samples)
    else:
        evaluation = evaluate(
            opened.model.network,
            opened.model.info,
            opened.samples,
            batch_size=batch_size,
            workers=workers,
            device=device,
            embeddings=True,
            watch=watch,
        )
    return Source(
        name=opened.name, samples=opened.samples, model=opened.model, table=opened.table, evaluation=evaluation
    )


def is_table(given: str) -> bool:
    """Whether this names a table of results, by its suffix.

    Raises:
        DataError: It names a table of embeddings.
    """
    suffix = Path(given).suffix.lower()
    if suffix == ARRAY:
        raise DataError(f"{given} has embeddings and no names; a report needs what birder predict wrote")
    return suffix in TABLES


def told_apart(names: Sequence[str]) -> list[str]:
    """The names with a number behind those that occur more than once: two runs that both left a best.safetensors."""
    total, seen = Counter(names), Counter[str]()
    different = []
    for name in names:
        seen[name] += 1
        different.append(f"{name} ({seen[name]})" if total[name] > 1 else name)
    return different
