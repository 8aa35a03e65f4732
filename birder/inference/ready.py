"""A model made ready to answer: loaded, and computed by what is fastest on this machine.

Shapes: V views, B pictures, H height, W width, K classes, D size of the embedding.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from birder.cores import available_cores
from birder.data.fitting import Fit, Pixels
from birder.data.transforms import InferenceTransform, classification_transform
from birder.device import resolve_device
from birder.errors import ConfigError
from birder.hub import checksum
from birder.hub.fetch import locate
from birder.inference.answers import Answers
from birder.inference.backends.base import Outputs
from birder.inference.backends.choice import Chosen, choose
from birder.inference.checklist import Checklist
from birder.inference.classification import five_crops
from birder.inference.novelty import NoveltyScore
from birder.inference.options import Work
from birder.inference.reader import Read
from birder.inference.rows import Floats, Row, Status
from birder.inference.scores import check_classifier, class_names
from birder.model_file import Calibration, load_model

_MOST_WORKERS = 8


class Loaded:
    """A model that was loaded from its file.

    Attributes:
        path: The model file.
        network: The network, in evaluation mode.
        info: What the model file says beside the weights.
        fit: What is made of a picture before it is normalised.
        bytes: Size of the file.
    """

    def __init__(self, model: str | Path, *, network: str | None = None) -> None:
        """Load it.

        Args:
            model: Name of a published model, or a model file.
            network: Name of the network, if the model file does not tell.

        Raises:
            UnknownName: No such published model or network.
            DownloadError: The model could not be downloaded.
            ModelFileError: The file is no usable model.
            ConfigError: The network does not take RGB.
        """
        self.path, published = locate(model)
        self.network, self.info = load_model(self.path, network=network or published)
        if self.network.input_channels != 3:
            raise ConfigError(
                f"{self.path}: pictures have 3 channels, this network takes {self.network.input_channels}"
            )
        self.fit = Fit(size=self.network.size)
        self.bytes = self.path.stat().st_size

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return checksum.sha256(self.path)

    @cached_property
    def names(self) -> list[str]:
        """Class names in the order of the labels, (K,).

        Raises:
            ModelFileError: The model has no classifier, or does not name its classes.
        """
        check_classifier(self.network)
        return class_names(self.network, self.info)

    def answers(
        self, *, top: int | None = 5, min_score: float | str = 0.0, checklist: Checklist | None = None
    ) -> Answers:
        """What makes rows of the network's numbers; see ``Answers``.

        Args:
            top: Classes for each picture; None is all.
            min_score: A probability, or ``auto``, the threshold that ``birder calibrate`` has found.
            checklist: The classes that may be named; None is all.

        Raises:
            ModelFileError: The model has no classifier.
            ConfigError: Numbers that make no sense, or ``auto`` of a model without threshold.
        """
        calibration = self.info.calibration
        novelty = None if calibration is None else calibration.novelty
        return Answers(
            names=self.names,
            top=top,
            min_score=_threshold(calibration) if isinstance(min_score, str) else min_score,
            checklist=checklist,
            temperature=1.0 if calibration is None else calibration.temperature,
            novelty=None if novelty is None else NoveltyScore(novelty),
        )

    def ready(self, work: Work) -> "Ready":
        """Choose what computes it.

        Raises:
            UnknownName: No such backend.
            ConfigError: Nothing here computes it as was asked.
            MissingPackage: The backend that was asked for is not installed.
        """
        chosen = choose(
            self.network,
            self.info.rgb_stats,
            model_digest=self.digest,
            backend=work.backend,
            precision=work.precision,
            device=resolve_device(work.device),
            batch_size=work.batch_size,
            threads=work.threads,
        )
        return Ready(chosen, classification_transform(self.network.size, self.info.rgb_stats), tta=work.tta)


class Ready:
    """Pixels to logits and embeddings; several threads may call it at once.

    Attributes:
        chosen: What computes, and why.
    """

    def __init__(self, chosen: Chosen, transform: InferenceTransform, *, tta: bool = False) -> None:
        """What computes; how pixels are normalised; whether to look at five parts of each picture."""
        self.chosen = chosen
        self._transform, self._tta = transform, tta

    @property
    def batch_size(self) -> int:
        """How many pictures go through the network together, at most."""
        return self.chosen.backend.batch_size

    def __call__(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Logits (V, B, K), none without classifier, and embeddings (V, B, D) of V views of pictures (B, H, W, 3).

        Raises:
            ConfigError: A batch does not fit into the memory of the device.
        """
        backend = self.chosen.backend
        try:
            moved = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(backend.device, non_blocking=True)
            images = self._transform.normalize(moved)
            views = [backend(view) for view in (five_crops(images) if self._tta else [images])]
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"a batch of {len(pixels)} does not fit into the memory of {backend.device}: lower batch_size"
            ) from error
        return _joined(views)


def reading_processes(work: Work) -> int:
    """As many as were asked for, or half of the cores: the network needs the others."""
    return min(_MOST_WORKERS, max(1, available_cores() // 2)) if work.workers is None else work.workers


def row_of(read: Read) -> Row:
    """What is known of a picture before the network has seen it."""
    status: Status = "error" if read.pixels is None else "ok"
    return Row(path=read.path, status=status, reason=read.reason, taken=read.taken, stamp=read.stamp)


def _threshold(calibration: Calibration | None) -> float:
    if calibration is None or calibration.threshold is None:
        raise ConfigError(
            "min_score: auto takes the threshold that birder calibrate has found, and this model has none; give a "
            "number from 0 to 1, or calibrate the model"
        )
    return calibration.threshold


def _joined(views: Sequence[Outputs]) -> tuple[Floats, Floats]:
    logits = np.stack([view.logits for view in views if view.logits is not None] or [np.empty((0, 0), np.float32)])
    return logits, np.stack([view.embeddings for view in views])
