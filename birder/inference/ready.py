"""A model made ready to answer: loaded, and computed by what is fastest on this machine.

Shapes: V views, B pictures, H height, W width, K classes, D size of the embedding.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birder import __version__
from birder.cores import available_cores
from birder.data.fitting import Fit, Pixels
from birder.errors import ConfigError, ModelFileError
from birder.hub import checksum
from birder.hub.fetch import locate
from birder.inference.answers import Answers
from birder.inference.backends.base import Outputs, Pending
from birder.inference.backends.cache import model_folder
from birder.inference.backends.choice import Chosen, choose
from birder.inference.checklist import Checklist
from birder.inference.classes import check_classifier, class_names
from birder.inference.description import Description, described, read_description, write_description
from birder.inference.novelty import NoveltyScore
from birder.inference.options import Work
from birder.inference.reader import Read
from birder.inference.rows import Floats, Row, Status
from birder.model_file.calibration import Calibration

if TYPE_CHECKING:
    from birder.model_file import ModelInfo
    from birder.networks.base import Network

logger = logging.getLogger("birder")

_MOST_WORKERS = 32  # a process takes 32 MB before it reads anything


class Model:
    """A model at hand: what is known of it, and its network, which is loaded when it is needed.

    A model that was at hand before, unchanged and in this version of birder, is not loaded for what is known of it.

    Attributes:
        path: The model file.
        known: What the file says, and what the network is.
        fit: What is made of a picture before it is normalised.
        bytes: Size of the file.
    """

    def __init__(self, model: str | Path, *, network: str | None = None) -> None:
        """Find it, and load it if nothing is known of it.

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
        self._named = network or published
        self._folder = self._place()
        self.known = self._remembered() or self._found_out()
        if self.known.input_channels != 3:
            raise ConfigError(f"{self.path}: pictures have 3 channels, this network takes {self.known.input_channels}")
        self.fit = Fit(size=self.known.size)
        self.bytes = self.path.stat().st_size

    @cached_property
    def network(self) -> "Network":
        """The network, in evaluation mode.

        Raises:
            ModelFileError: The file is not the one any more of which the rest is known.
        """
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> "tuple[Network, ModelInfo]":
        from birder.model_file import load_model

        loaded = load_model(self.path, network=self._named)
        if not self._is_the_same():
            raise ModelFileError(f"{self.path}: was replaced while it was being read; start again")
        return loaded

    def _is_the_same(self) -> bool:
        try:
            return checksum.sha256(self.path) == self.digest
        except OSError:
            return False

    def _place(self) -> Path | None:
        """The folder for what is found out about it; None if there is none, or no such file."""
        # Where no network was named, the name of the file may tell.
        asked = {"network": self._named} if self._named else {"file": self.path.stem}
        try:
            if self.path.is_file():
                return model_folder({"model": self.digest, "birder": __version__, **asked})
        except OSError:  # loading it will say what is wrong with the file
            pass
        return None

    def _remembered(self) -> Description | None:
        known = None if self._folder is None else read_description(self._folder)
        if known is not None and known.adapted:
            logger.info("%s, %s", self.path, known.adapted)
        return known

    def _found_out(self) -> Description:
        network, info = self._loaded
        known = described(network, info)
        if not type(network).__module__.startswith("birder."):
            self._folder = None  # whose code may change while nothing of the model does
        if self._folder is not None:
            write_description(self._folder, known)
        return known

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
        check_classifier(self.known)
        return class_names(self.known, self.known.class_to_idx)

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
        calibration = self.known.calibration
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
            lambda: self.network,
            self.known.size,
            self.known.rgb_stats,
            folder=self._folder,
            backend=work.backend,
            precision=work.precision,
            device=work.device,
            batch_size=work.batch_size,
            threads=work.threads,
        )
        return Ready(chosen, tta=work.tta)


class Ready:
    """Pixels to logits and embeddings; several threads may call it at once.

    Attributes:
        chosen: What computes, and why.
    """

    def __init__(self, chosen: Chosen, *, tta: bool = False) -> None:
        """What computes; whether to look at five parts of each picture."""
        self.chosen, self._tta = chosen, tta

    @property
    def batch_size(self) -> int:
        """How many pictures go through the network together, at most."""
        return self.chosen.backend.batch_size

    def begin(self, pixels: Pixels) -> Pending:
        """Have pictures (B, H, W, 3) computed, and do not wait; ``stacked`` makes arrays of the result."""
        return self.chosen.backend.begin(pixels, five=self._tta)

    def __call__(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Logits (V, B, K), none without classifier, and embeddings (V, B, D) of V views of pictures (B, H, W, 3).

        Raises:
            ConfigError: A batch does not fit into the memory of the device.
        """
        return stacked(self.begin(pixels).result())


def stacked(views: Sequence[Outputs]) -> tuple[Floats, Floats]:
    """Logits (V, B, K), none without classifier, and embeddings (V, B, D) of V views."""
    logits = np.stack([view.logits for view in views if view.logits is not None] or [np.empty((0, 0), np.float32)])
    return logits, np.stack([view.embeddings for view in views])


def reading_processes(work: Work) -> int:
    """As many as were asked for, or as there are cores: where reading takes longer than the network, it has them all.

    They read only so far ahead, and wait then, so that elsewhere the network has the cores.
    """
    return min(_MOST_WORKERS, available_cores()) if work.workers is None else work.workers


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
