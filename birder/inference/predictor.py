"""Files to rows: a stream, in the order of the files, of what each shows or why it could not be read.

Pictures are read by processes of their own while the network computes, with whatever computes fastest on this machine
and agrees with torch. Only some batches are in memory at a time, so the files may be a million; a file that cannot be
read is one row with the reason, and touches no other.

Shapes: V views, B pictures, K classes, D size of the embedding.
"""

import logging
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from birder.cores import available_cores
from birder.data.fitting import Fit, Pixels
from birder.data.transforms import classification_transform
from birder.device import resolve_device
from birder.errors import ConfigError
from birder.hub import checksum
from birder.hub.fetch import locate
from birder.inference.answers import Answers, embedded
from birder.inference.backends.base import Outputs
from birder.inference.backends.choice import choose
from birder.inference.bulk.inputs import batches
from birder.inference.checklist import Checklist
from birder.inference.classification import five_crops
from birder.inference.novelty import NoveltyScore
from birder.inference.options import Options
from birder.inference.reader import Read
from birder.inference.reading import Readers
from birder.inference.results.layout import Layout
from birder.inference.rows import Floats, Row, Status
from birder.inference.scores import check_classifier, class_names
from birder.model_file import Calibration, ModelInfo, load_model
from birder.networks.base import Network

logger = logging.getLogger("birder")

_MOST_WORKERS = 8


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
        chosen: What computes, and why.
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
        device = resolve_device(self.options.device)
        self.path, published = locate(model)
        net, info = load_model(self.path, network=network or published)
        if net.input_channels != 3:
            raise ConfigError(f"{self.path}: pictures have 3 channels, this network takes {net.input_channels}")
        self._answers = None if embeddings else _answers(net, info, self.options)
        self.network_name, self.size = net.name, net.size
        self.names = list(self._answers.names) if self._answers else []
        self.layout = self._answers.layout if self._answers else Layout(embedding=net.embedding_size)
        self._fit, self._transform = Fit(size=net.size), classification_transform(net.size, info.rgb_stats)
        # The processes start while the network is made ready.
        self._readers = Readers(_workers(self.options), timeout=self.options.timeout)
        try:
            self.chosen = choose(
                net,
                info.rgb_stats,
                model_digest=checksum.sha256(self.path),
                backend=self.options.backend,
                precision=self.options.precision,
                device=device,
                batch_size=self.options.batch_size,
                threads=self.options.threads,
            )
        except BaseException:
            self.close()
            raise
        logger.info("%s", self.chosen.sentence)

    @property
    def batch_size(self) -> int:
        """How many pictures go through the network together."""
        return self.chosen.backend.batch_size

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
        for reads in self._readers.read(batches, self._fit, exact=exact, truncated=truncated):
            yield self._rows(reads)

    def close(self) -> None:
        """End the processes that read."""
        self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, reads: list[Read]) -> list[Row]:
        rows = [_row(read) for read in reads]
        pixels = {index: read.pixels for index, read in enumerate(reads) if read.pixels is not None}
        if pixels:
            logits, embeddings = self._computed(np.stack(list(pixels.values())))
            known = [rows[index] for index in pixels]
            if self._answers is None:
                named = embedded(known, embeddings.mean(axis=0))
            else:
                named = self._answers(known, logits, embeddings)
            for index, row in zip(pixels, named, strict=True):
                rows[index] = row
        return rows

    def _computed(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Logits (V, B, K) and embeddings (V, B, D) of V views of pictures (B, H, W, 3)."""
        backend = self.chosen.backend
        try:
            moved = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(backend.device, non_blocking=True)
            images = self._transform.normalize(moved)
            views = [backend(view) for view in (five_crops(images) if self.options.tta else [images])]
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"a batch of {len(pixels)} does not fit into the memory of {backend.device}: lower batch_size"
            ) from error
        return _joined(views)


def _answers(net: Network, info: ModelInfo, options: Options) -> Answers:
    check_classifier(net)
    names = class_names(net, info)
    checklist = None if options.classes is None else Checklist.from_file(options.classes, names)
    if checklist is not None and checklist.notice:
        logger.warning("%s", checklist.notice)
    top = None if options.top == "all" else options.top
    calibration = info.calibration
    novelty = None if calibration is None else calibration.novelty
    return Answers(
        names=names,
        top=top,
        min_score=_min_score(options, calibration),
        checklist=checklist,
        temperature=1.0 if calibration is None else calibration.temperature,
        novelty=None if novelty is None else NoveltyScore(novelty),
    )


def _min_score(options: Options, calibration: Calibration | None) -> float:
    if options.min_score != "auto":
        return options.min_score
    if calibration is None or calibration.threshold is None:
        raise ConfigError(
            "min_score: auto takes the threshold that birder calibrate has found, and this model has none; give a "
            "number from 0 to 1, or calibrate the model"
        )
    return calibration.threshold


def _workers(options: Options) -> int:
    """As many as half of the cores: the network needs the others."""
    return min(_MOST_WORKERS, max(1, available_cores() // 2)) if options.workers is None else options.workers


def _row(read: Read) -> Row:
    status: Status = "error" if read.pixels is None else "ok"
    return Row(path=read.path, status=status, reason=read.reason, taken=read.taken, stamp=read.stamp)


def _joined(views: list[Outputs]) -> tuple[Floats, Floats]:
    """Logits of all views, (V, B, K), none without classifier, and their embeddings, (V, B, D)."""
    logits = np.stack([view.logits for view in views if view.logits is not None] or [np.empty((0, 0), np.float32)])
    return logits, np.stack([view.embeddings for view in views])
