"""Files to rows: a stream, in the order of the files, of what each shows or why it could not be read.

Pictures are read by processes of their own while the network computes, with whatever computes fastest on this machine
and agrees with torch. Only some batches are in memory at a time, so the files may be a million; a file that cannot be
read is one row with the reason, and touches no other.

Shapes: V views, B pictures, K classes, D size of the embedding.
"""

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from birder.inference.answers import Answers, embedded
from birder.inference.backends.base import Pending
from birder.inference.backends.choice import Chosen
from birder.inference.bulk.inputs import batches
from birder.inference.checklist import Checklist
from birder.inference.options import Options
from birder.inference.reader import Read
from birder.inference.reading import Readers
from birder.inference.ready import Model, reading_processes, row_of, stacked
from birder.inference.results.layout import Layout
from birder.inference.rows import Row

logger = logging.getLogger("birder")

_UNDER_WAY = 2  # batches: cores that are done with one go on with the next, while its rows are made and written


class Predictor:
    """A model made ready for any number of pictures.

    ``for row in Predictor("model.safetensors").stream(paths): print(row.path, row.labels[0], row.scores[0])``

    The processes that read are kept until ``close``, the end of a ``with`` block or of the program.

    Attributes:
        path: The model file.
        network_name: Registered name of the network.
        size: (height, width) that pictures are brought to.
        names: Class names in the order of the labels; empty if embeddings are asked for.
        layout: What a table of the rows needs room for.
    """

    def __init__(
        self, model: str | Path, options: Options | None = None, *, network: str | None = None, embeddings: bool = False
    ) -> None:
        """Load a model and choose what computes it.

        Args:
            model: Name of a published model, or a model file.
            options: How to read and to compute, and what to say; None is ``Options()``.
            network: Name of the network, if the model file does not tell.
            embeddings: Give the embedding of each picture, and no names.

        Raises:
            UnknownName: No such published model, network or backend.
            DownloadError: The model could not be downloaded.
            ModelFileError: The file is no usable model, or has no classifier.
            ConfigError: The network does not take RGB, or nothing here computes it as was asked.
            MissingPackage: The backend that was asked for is not installed.
        """
        self.options = options or Options()
        found = Model(model, network=network)
        self.path, self._fit = found.path, found.fit
        self.network_name, self.size = found.known.network, found.known.size
        self._answers = None if embeddings else _answers(found, self.options)
        self.names = list(self._answers.names) if self._answers else []
        self.layout = self._answers.layout if self._answers else Layout(embedding=found.known.embedding_size)
        # The processes start while the network is made ready.
        self._readers = Readers(reading_processes(self.options), timeout=self.options.timeout)
        try:
            self._ready = found.ready(self.options)
        except BaseException:
            self.close()
            raise
        logger.info("%s", self.chosen.sentence)

    @property
    def chosen(self) -> Chosen:
        """What computes, and why."""
        return self._ready.chosen

    @property
    def batch_size(self) -> int:
        """How many pictures go through the network together."""
        return self._ready.batch_size

    def stream(self, paths: Iterable[str | Path]) -> Iterator[Row]:
        """A row for each picture, in the order of the paths, which are taken as needed and may be without end.

        Raises:
            ConfigError: While running: a batch does not fit into the memory of the device.
            DataError: While running: no process that reads can be started.
        """
        with closing(self.run(batches((os.fspath(path) for path in paths), self.batch_size))) as all_rows:
            for rows in all_rows:
                yield from rows

    def run(self, batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        """The rows of each batch of paths, of at most ``batch_size``; errors as in ``stream``."""
        exact, truncated = self.options.exact, self.options.truncated == "read"
        under_way: deque[_Batch] = deque()
        try:
            for reads in self._readers.read(batches, self._fit, exact=exact, truncated=truncated):
                under_way.append(self._begin(reads))
                if len(under_way) == _UNDER_WAY:
                    yield self._rows(under_way.popleft())
            while under_way:
                yield self._rows(under_way.popleft())
        finally:
            for batch in under_way:
                batch.cancel()

    def close(self) -> None:
        """End the processes that read."""
        self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, reads: list[Read]) -> "_Batch":
        pixels = {index: read.pixels for index, read in enumerate(reads) if read.pixels is not None}
        pending = self._ready.begin(np.stack(list(pixels.values()))) if pixels else None
        return _Batch([row_of(read) for read in reads], list(pixels), pending)

    def _rows(self, batch: "_Batch") -> list[Row]:
        if batch.pending is None:
            return batch.rows
        logits, embeddings = stacked(batch.pending.result())
        known = [batch.rows[index] for index in batch.seen]
        if self._answers is None:
            named = embedded(known, embeddings.mean(axis=0))
        else:
            named = self._answers(known, logits, embeddings)
        rows = list(batch.rows)
        for index, row in zip(batch.seen, named, strict=True):
            rows[index] = row
        return rows


class _Batch(NamedTuple):
    """Pictures that the network is at."""

    rows: list[Row]
    """What is known before it has seen them."""
    seen: list[int]
    """Which of them it sees."""
    pending: Pending | None
    """Its answers to these; None if it sees none."""

    def cancel(self) -> None:
        """Nobody waits for them any more."""
        if self.pending is not None:
            self.pending.cancel()


def _answers(model: Model, options: Options) -> Answers:
    checklist = None if options.classes is None else Checklist.from_file(options.classes, model.names)
    if checklist is not None and checklist.notice:
        logger.warning("%s", checklist.notice)
    top = None if options.top == "all" else options.top
    return model.answers(top=top, min_score=options.min_score, checklist=checklist)
