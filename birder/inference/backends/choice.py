"""Which way to compute is taken for a network on this machine: the fastest that passes the gate.

Every way that is likely to be fast is made ready, compared with torch fp32 (``gate``) and timed for some batches
(``probing``); what was found is kept (``cache``). The next time only what was chosen is made ready, and asked for a few
pictures, so that a driver or a file that has changed unseen is noticed. Where that is OpenVINO, it needs neither the
network nor torch, which would take longer to import than all the rest.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birder.cores import available_cores
from birder.data.fitting import Pixels
from birder.device import device_name
from birder.errors import ConfigError
from birder.inference.backends import gate, table
from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.cache import read_choice, trim, write_choice
from birder.inference.backends.gate import Agreement
from birder.inference.backends.table import Way
from birder.inference.machine import describe_machine, free_memory, versions
from birder.inference.rows import BLOCK
from birder.signature import RGBStats

if TYPE_CHECKING:
    from birder.networks.base import Network

logger = logging.getLogger("birder")

PLAIN = Way("torch", "fp32")
"""What is always there, and what the others are compared with."""
PRECISIONS = ("auto", "fp32", "bf16", "int8")
"""What may be asked for."""

_GLANCE = 2  # golden pictures by which a choice of an earlier run is looked at again
_CALIBRATION = 128  # golden pictures that int8 learns its ranges from
_BYTES_PER_PIXEL = 600  # of a picture, on its way through a network; see suitable_batch_size


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A backend that is ready, and why it was taken."""

    backend: Backend
    """Ready for batches."""
    way: Way
    """What it is, and what its numbers are."""
    threads: int
    """Of the processor; 0 is as many as there are cores."""
    agreement: Agreement | None
    """With torch fp32, on drawn birds; None of torch fp32 itself."""
    sentence: str
    """What was chosen and why, in one line."""
    remembered: bool
    """Whether it was chosen by an earlier run."""
    versions: Mapping[str, str] = field(default_factory=versions)
    """Of birder and of the packages that compute."""

    @property
    def settings(self) -> dict[str, Any]:
        """What tells whether another run computes the same numbers."""
        package = {"openvino": "openvino", "onnx": "onnxruntime"}.get(self.way.name, "torch")
        return {
            "backend": self.way.name,
            "precision": self.way.precision,
            "batch_size": self.backend.batch_size,
            "threads": self.threads,
            "device": self.backend.device.partition(":")[0],
            "versions": {name: self.versions[name] for name in ("birder", package) if name in self.versions},
        }


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be made ready, and for what."""

    load: Callable[[], "Network"]
    """Gives the network."""
    size: tuple[int, int]
    """(height, width) that it takes."""
    stats: RGBStats
    """Colour statistics by which pictures are normalised."""
    device: str
    """Where to compute."""
    batch_size: int
    """The largest batch."""
    threads: int
    """Of the processor; 0 is as many as there are cores."""
    converted: Path | None
    """Where OpenVINO keeps the network; None if nowhere."""
    calibration: Pixels | None
    """Pictures from which int8 learns its ranges; None for drawn birds."""

    def build(self, way: Way) -> Backend:
        """Make one way ready; see ``table.create``."""
        folder, pictures = self.converted, None
        if way.precision == "int8":
            pictures = self.calibration
            if pictures is None:
                pictures = self.golden(_CALIBRATION)
            elif folder is not None:  # its ranges are part of what is converted
                folder = folder / f"calibrated-{_fingerprint(pictures)}"
        return table.create(
            way,
            self.load,
            self.stats,
            batch_size=self.batch_size,
            device=self.device,
            threads=self.threads,
            folder=folder,
            pictures=pictures,
        )

    def forget(self) -> None:
        """Delete what was converted: it was good once, and so may be damaged."""
        if self.converted is not None:
            shutil.rmtree(self.converted, ignore_errors=True)

    def golden(self, count: int) -> Pixels:
        """So many golden pictures."""
        return gate.golden_pictures(self.size, count)

    def question(self, *asked: object) -> dict[str, Any]:
        """All that the answer depends on beside the model."""
        return {
            "asked": [*asked, None if self.calibration is None else _fingerprint(self.calibration)],
            "batch_size": self.batch_size,
            "machine": describe_machine(self.device),
            "versions": versions(),
        }


def choose(
    load: Callable[[], "Network"],
    size: tuple[int, int],
    stats: RGBStats,
    *,
    folder: Path | None = None,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int = 0,
    calibration: Pixels | None = None,
) -> Chosen:
    """Make the fastest way ready that agrees with torch fp32 on this machine.

    Args:
        load: Gives the network, which takes RGB and has float32 weights; it may be moved to ``device``. It is called
            only if the network is needed: not if a network that was converted earlier was also chosen earlier.
        size: (height, width) that the network takes.
        stats: Colour statistics, from the model file.
        folder: Where is kept what was found out about this very network (``cache.model_folder``); None is nowhere.
        backend: ``auto``, or one of ``table.names()``.
        precision: ``auto`` (bf16 where the device computes it, or fp32), ``fp32``, ``bf16``, or ``int8``, which is
            never chosen unasked.
        device: Where to compute; ``auto`` is the fastest there is.
        batch_size: Pictures that go through the network together, 1 to 64; None is what suits the machine.
        threads: Of the processor; 0 is as many as there are cores.
        calibration: Pictures from which int8 learns its ranges, uint8 (N, H, W, 3), better the user's own than None,
            drawn birds.

    Raises:
        ConfigError: What was asked for is not possible on this machine, or does not agree with torch fp32; numbers that
            make no sense.
        UnknownName: There is no such backend.
    """
    _check(precision, batch_size, threads)
    place = device_name(device)
    task = Task(
        load=load,
        size=size,
        stats=stats,
        device=place,
        batch_size=batch_size or suitable_batch_size(size, place),
        threads=threads,
        converted=folder / "converted" if folder else None,
        calibration=calibration,
    )
    question = task.question(backend, precision, batch_size, threads)
    if folder and (chosen := _remembered(task, folder, question)):
        return chosen
    from birder.inference.backends.probing import probe

    found = probe(task, backend, precision)
    if folder and found.kept:
        way = found.chosen.way
        # A run that is gone on with asks for what it was begun with.
        for asked in (question, task.question(way.name, way.precision, task.batch_size, threads)):
            write_choice(folder, asked, *found.kept)
        trim(folder)
    return found.chosen


def suitable_batch_size(size: tuple[int, int], device: str) -> int:
    """Pictures in a batch, a part of ``BLOCK``, less where memory is short.

    64 on a GPU. On a processor, where each core computes a picture of its own, at least two for each core, so that
    cores seldom wait for the last one, and at least 8.

    Args:
        size: (height, width) of the pictures.
        device: Where to compute.
    """
    batch_size = BLOCK
    while device == "cpu" and batch_size > 8 and batch_size // 2 >= 2 * available_cores():
        batch_size //= 2
    free = free_memory(device)
    height, width = size
    while free is not None and batch_size > 1 and batch_size * height * width * _BYTES_PER_PIXEL > free / 4:
        batch_size //= 2
    return batch_size


def first_line(error: Exception) -> str:
    """What an error of any package says, in brief."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _check(precision: str, batch_size: int | None, threads: int) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if batch_size is not None and not 1 <= batch_size <= BLOCK:
        raise ConfigError(f"batch_size must be 1 to {BLOCK}, not {batch_size}")
    if threads < 0:
        raise ConfigError(f"threads must be 0 (all cores) or more, not {threads}")


def _fingerprint(pictures: Pixels) -> str:
    return hashlib.sha256(pictures.tobytes()).hexdigest()[:24]


def _remembered(task: Task, folder: Path, question: Mapping[str, Any]) -> Chosen | None:
    """What an earlier run chose, made ready; None if there is nothing, or it is no longer good."""
    kept = read_choice(folder, question)
    if kept is None:
        return None
    answer, wanted = kept
    try:
        way = Way(answer["name"], answer["precision"])
        if way not in table.WAYS:
            return None
        found, sentence = Agreement(**answer["agreement"]), str(answer["sentence"])
        pictures = task.golden(min(_GLANCE, len(wanted.embeddings)))
        backend = task.build(way)
        logits = None if wanted.logits is None else wanted.logits[: len(pictures)]
        first = Outputs(wanted.embeddings[: len(pictures)], logits)
        why = gate.refusal(gate.agreement(backend, first, pictures), way.precision)
    except Exception as error:  # whatever a package raises: it is found out anew what can be had
        logger.warning("what was chosen for this model is chosen anew: %s", first_line(error))
        task.forget()
        return None
    if why is not None:
        logger.warning("%s was chosen for this model, but %s: chosen anew", way, why)
        task.forget()
        return None
    return Chosen(backend=backend, way=way, threads=task.threads, agreement=found, sentence=sentence, remembered=True)
