"""Which way to compute is taken for a network on this machine: the fastest that passes the gate.

Every way that is likely to be fast is made ready, compared with torch fp32 (``gate``) and timed for some batches; what
was found is kept (``cache``). The next time only what was chosen is made ready, and asked for a few pictures,
so that a driver or a file that has changed unseen is noticed.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from birder.cores import available_cores
from birder.device import computes_bfloat16, resolve_device
from birder.errors import ConfigError, UnknownName, suggestion
from birder.inference.backends import gate, table
from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.cache import model_folder, read_choice, trim, write_choice
from birder.inference.backends.gate import Agreement
from birder.inference.backends.table import Way
from birder.inference.machine import describe_machine, free_memory, versions
from birder.inference.rows import BLOCK
from birder.networks.base import Network
from birder.signature import RGBStats

logger = logging.getLogger("birder")

PLAIN = Way("torch", "fp32")
"""What is always there, and what the others are compared with."""
PRECISIONS = ("auto", "fp32", "bf16", "int8")
"""What may be asked for."""
ENOUGH_S = 20.0
"""Seconds of probing after which no further way is tried, once one is good."""

_SLOW_TO_BUILD = "compiled"  # takes a minute, which it rarely is worth: only when asked for
_FEWEST = 13  # golden pictures: no multiple of a batch size, so that a batch that is not full is seen too
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
            "device": self.backend.device.type,
            "versions": {name: self.versions[name] for name in ("birder", package) if name in self.versions},
        }


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is to be made ready, and for what."""

    network: Network
    stats: RGBStats
    device: torch.device
    batch_size: int
    threads: int
    converted: Path | None
    calibration: Tensor | None

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
            self.network,
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

    def golden(self, count: int) -> Tensor:
        """So many golden pictures."""
        return gate.golden_pictures(self.network.size, self.stats, count)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A way that passed the gate."""

    way: Way
    backend: Backend
    agreement: Agreement
    per_second: float


def choose(
    network: Network,
    stats: RGBStats,
    *,
    model_digest: str | None = None,
    backend: str = "auto",
    precision: str = "auto",
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    threads: int = 0,
    calibration: Tensor | None = None,
) -> Chosen:
    """Make the fastest way ready that agrees with torch fp32 on this machine.

    Args:
        network: It takes RGB; its weights are float32. It is moved to ``device``.
        stats: Colour statistics, from the model file.
        model_digest: Tells the model's file from any other; without it, nothing is kept from run to run.
        backend: ``auto``, or one of ``table.names()``.
        precision: ``auto`` (bf16 where the device computes it, or fp32), ``fp32``, ``bf16``, or ``int8``, which is
            never chosen unasked.
        device: Where to compute.
        batch_size: Pictures that go through the network together, 1 to 64; None is what suits the machine.
        threads: Of the processor; 0 is as many as there are cores.
        calibration: Pictures from which int8 learns its ranges, normalised float32 (N, 3, H, W), better the user's own
            than None, drawn birds.

    Raises:
        ConfigError: What was asked for is not possible on this machine, or does not agree with torch fp32; numbers that
            make no sense; a network that does not take RGB.
        UnknownName: There is no such backend.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    _check(network, precision, batch_size, threads)
    ways = candidates(device, backend, precision)
    network.to(device)
    folder = None if model_digest is None else model_folder(_identity(network, stats, model_digest))
    task = _Task(
        network=network,
        stats=stats,
        device=device,
        batch_size=batch_size or suitable_batch_size(network, device),
        threads=threads,
        converted=folder / "converted" if folder is not None and os.access(folder, os.W_OK) else None,
        calibration=calibration,
    )
    if ways == [PLAIN]:
        return _plain(task, "nothing faster is installed" if backend == precision == "auto" else "as asked")
    question = _question(task, [backend, precision, batch_size, threads])
    chosen = None if folder is None else _remembered(task, ways, folder, question)
    if chosen is not None:
        return chosen
    wanted, answer, chosen = _probed(task, ways)
    if folder is not None and answer is not None:
        # A run that is gone on with asks for what it was begun with.
        begun_with = _question(task, [chosen.way.name, chosen.way.precision, task.batch_size, threads])
        for asked in (question, begun_with):
            write_choice(folder, asked, answer, wanted)
        trim(folder)
    return chosen


def candidates(device: torch.device, backend: str = "auto", precision: str = "auto") -> list[Way]:
    """The ways that are worth a try, the likely fastest first.

    Raises:
        ConfigError: What was asked for is not possible here.
        UnknownName: There is no such backend.
    """
    if backend != "auto" and backend not in table.names():
        known = ", ".join(("auto", *table.names()))
        raise UnknownName(f"no backend is called {backend!r}{suggestion(backend, table.names())} (there are: {known})")
    possible = table.available(device)
    asked = [way for way in possible if backend in ("auto", way.name) and precision in (way.precision, "auto")]
    there = [way for way in asked if not possible[way]]
    if not there:
        reasons = "; ".join(f"{way}: {possible[way]}" for way in asked) or f"there is no {backend} {precision}"
        raise ConfigError(f"{reasons}; {PLAIN} is always there (--backend torch --precision fp32)")
    if precision == "auto":
        fast = computes_bfloat16(device)
        there = [way for way in there if way.precision == "fp32" or (way.precision == "bf16" and fast)] or there[:1]
    if backend == "auto":
        there = [way for way in there if way.name != _SLOW_TO_BUILD] or there
        if any(way.name == "openvino" for way in there):
            there = [way for way in there if way.name != "onnx"]
    return sorted(there, key=lambda way: (way == PLAIN, precision == "auto" and way.precision == "fp32"))


def suitable_batch_size(network: Network, device: torch.device) -> int:
    """Pictures in a batch, a part of ``BLOCK``, less where memory is short.

    64 on a GPU. On a processor, where each core computes a picture of its own, at least two for each core, so that
    cores seldom wait for the last one, and at least 8.
    """
    batch_size = BLOCK
    while device.type == "cpu" and batch_size > 8 and batch_size // 2 >= 2 * available_cores():
        batch_size //= 2
    free = free_memory(device)
    height, width = network.size
    while free is not None and batch_size > 1 and batch_size * height * width * _BYTES_PER_PIXEL > free / 4:
        batch_size //= 2
    return batch_size


def pictures_per_second(backend: Backend, images: Tensor) -> float:
    """How many pictures a backend does in a second: its best of two full batches or more, within about a second."""
    batch = images[: backend.batch_size].to(backend.device)
    best, start = float("inf"), time.perf_counter()
    for round_ in range(20):
        begin = time.perf_counter()
        backend(batch)
        best = min(best, time.perf_counter() - begin)
        if round_ >= 1 and time.perf_counter() - start > 1.0:
            break
    return len(batch) / best


def _check(network: Network, precision: str, batch_size: int | None, threads: int) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if batch_size is not None and not 1 <= batch_size <= BLOCK:
        raise ConfigError(f"batch_size must be 1 to {BLOCK}, not {batch_size}")
    if threads < 0:
        raise ConfigError(f"threads must be 0 (all cores) or more, not {threads}")
    if network.input_channels != 3:
        raise ConfigError(f"pictures have 3 channels, this network takes {network.input_channels}")


def _identity(network: Network, stats: RGBStats, model_digest: str) -> dict[str, Any]:
    return {
        "model": model_digest,
        "network": network.name,
        "config": repr(network.config),
        "classes": network.num_classes,
        "size": list(network.size),
        "rgb_stats": {name: list(stats[name]) for name in ("mean", "std")},
    }


def _question(task: _Task, asked: list[Any]) -> dict[str, Any]:
    """All that the answer depends on beside the model."""
    return {
        "asked": [*asked, None if task.calibration is None else _fingerprint(task.calibration)],
        "batch_size": task.batch_size,
        "machine": describe_machine(task.device),
        "versions": versions(),
    }


def _fingerprint(pictures: Tensor) -> str:
    return hashlib.sha256(pictures.contiguous().cpu().numpy().tobytes()).hexdigest()[:24]


def _plain(task: _Task, why: str, agreement: Agreement | None = None) -> Chosen:
    backend = task.build(PLAIN)
    sentence = f"{PLAIN}, batches of {backend.batch_size}: {why}"
    return Chosen(
        backend=backend, way=PLAIN, threads=task.threads, agreement=agreement, sentence=sentence, remembered=False
    )


def _remembered(task: _Task, ways: list[Way], folder: Path, question: Mapping[str, Any]) -> Chosen | None:
    """What an earlier run chose, made ready; None if there is nothing, or it is no longer good."""
    kept = read_choice(folder, question)
    if kept is None:
        return None
    answer, wanted = kept
    try:
        way = Way(answer["name"], answer["precision"])
        found, sentence = Agreement(**answer["agreement"]), str(answer["sentence"])
        images = task.golden(min(_GLANCE, len(wanted.embeddings)))
        if way not in ways:
            return None
        backend = task.build(way)
        logits = None if wanted.logits is None else wanted.logits[: len(images)]
        first = Outputs(wanted.embeddings[: len(images)], logits)
        why = gate.refusal(gate.agreement(backend, first, images), way.precision)
    except Exception as error:  # whatever a package raises: it is found out anew what can be had
        logger.warning("what was chosen for this model is chosen anew: %s", _first_line(error))
        task.forget()
        return None
    if why is not None:
        logger.warning("%s was chosen for this model, but %s: chosen anew", way, why)
        task.forget()
        return None
    return Chosen(backend=backend, way=way, threads=task.threads, agreement=found, sentence=sentence, remembered=True)


def _probed(task: _Task, ways: list[Way]) -> tuple[Outputs, dict[str, Any] | None, Chosen]:
    """The reference's answers, what is to be kept, and the fastest way that passes.

    Raises:
        ConfigError: None passes, and torch fp32 is not among those that were asked for.
    """
    count = max(_FEWEST, task.batch_size + task.batch_size // 2 + 1)
    images = task.golden(count)
    wanted = gate.reference(task.network, images.to(task.device))
    best: _Found | None = None
    good: list[Way] = []
    reasons: list[str] = []
    start = time.perf_counter()
    for way in ways:
        if best is not None and time.perf_counter() - start > ENOUGH_S:
            break
        if way.precision == "fp32" and Way(way.name, "bf16") in good:
            continue  # it would be slower
        found = _tried(task, way, images, wanted, timed=len(ways) > 1)
        if isinstance(found, str):
            reasons.append(f"not {way}, as {found}")
            logger.warning("%s is not used: %s", way, found)
            continue
        good.append(way)
        if best is None or found.per_second > best.per_second:
            best = found
    if best is None:
        if PLAIN not in ways:
            raise ConfigError(f"{'; '.join(reasons)}; {PLAIN} is always there (--backend torch --precision fp32)")
        return wanted, None, _plain(task, "; ".join(reasons))
    speed = f"{best.per_second:.3g} pictures/s, " if len(ways) > 1 else ""
    sentence = "; ".join([f"{best.way}, batches of {task.batch_size}: {speed}{best.agreement}", *reasons])
    answer = {
        "name": best.way.name,
        "precision": best.way.precision,
        "per_second": best.per_second,
        "agreement": asdict(best.agreement),
        "sentence": sentence,
    }
    chosen = Chosen(
        backend=best.backend,
        way=best.way,
        threads=task.threads,
        agreement=best.agreement,
        sentence=sentence,
        remembered=False,
    )
    return wanted, answer, chosen


def _tried(task: _Task, way: Way, images: Tensor, wanted: Outputs, *, timed: bool) -> _Found | str:
    """A way that was made ready and compared, or why it is of no use."""
    try:
        backend = task.build(way)
        found = gate.agreement(backend, wanted, images)
        why = gate.refusal(found, way.precision)
        if why is not None:
            return why
        per_second = pictures_per_second(backend, images) if timed else 0.0
        return _Found(way=way, backend=backend, agreement=found, per_second=per_second)
    except Exception as error:  # whatever a package raises, another way may be good
        logger.debug("%s", way, exc_info=True)
        return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
