"""Finding out which way to compute is the fastest for a network on this machine, and whether it computes right."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from birder.data.fitting import Pixels
from birder.data.transforms import classification_transform
from birder.device import computes_bfloat16
from birder.errors import ConfigError, UnknownName, suggestion
from birder.inference.backends import gate, table
from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.choice import PLAIN, Chosen, Task, first_line
from birder.inference.backends.gate import Agreement
from birder.inference.backends.table import Way
from birder.inference.classification import infer_batch
from birder.networks.base import Network
from birder.signature import RGBStats

logger = logging.getLogger("birder")

ENOUGH_S = 20.0
"""Seconds of probing after which no further way is tried, once one is good."""

_SLOW_TO_BUILD = "compiled"  # takes a minute, which it rarely is worth: only when asked for
_FEWEST = 13  # golden pictures: no multiple of a batch size, so that a batch that is not full is seen too
_AT_ONCE = 4  # pictures of the reference: small batches are as fast, and need little memory


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was found out."""

    chosen: Chosen
    """The fastest way that passed."""
    kept: tuple[dict[str, Any], Outputs] | None = None
    """What the next run has to know, with the answers of torch fp32 to the golden pictures; None if it has to find out
    for itself, or there is nothing to be found out."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A way that passed the gate."""

    way: Way
    backend: Backend
    agreement: Agreement
    per_second: float = 0.0
    """Pictures, where it was timed."""


def candidates(device: str, backend: str = "auto", precision: str = "auto") -> list[Way]:
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


def pictures_per_second(backends: Sequence[Backend], pictures: Pixels) -> list[float]:
    """How many pictures each of some backends does in a second: its best of two full batches or more.

    They take turns for about a second each, so that whatever else the machine is at meets all of them.
    """
    best, start = [0.0] * len(backends), time.perf_counter()
    for round_ in range(20):
        for index, backend in enumerate(backends):
            batch = pictures[: backend.batch_size]
            begin = time.perf_counter()
            backend(batch)
            best[index] = max(best[index], len(batch) / (time.perf_counter() - begin))
        if round_ >= 1 and time.perf_counter() - start > len(backends):
            break
    return best


def reference(network: Network, pictures: Pixels, stats: RGBStats) -> Outputs:
    """What the network answers in torch with 32-bit numbers, to (N, H, W, C), where it stands."""
    device = next(network.parameters()).device
    transform = classification_transform(network.size, stats)
    images = transform.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device))
    parts = [infer_batch(network, part, True, return_logits=True) for part in images.split(_AT_ONCE)]
    embeddings = np.concatenate([embedding for _, embedding in parts if embedding is not None])
    return Outputs(embeddings, np.concatenate([logits for logits, _ in parts]) if network.num_classes else None)


def probe(task: Task, backend: str, precision: str) -> Probed:
    """Make the fastest way ready that passes the gate.

    Args:
        task: What is to be made ready, and for what.
        backend: ``auto``, or one of ``table.names()``.
        precision: ``auto``, or one of ``choice.PRECISIONS``.

    Raises:
        ConfigError: What was asked for is not possible here, or does not agree with torch fp32.
        UnknownName: There is no such backend.
    """
    ways = candidates(task.device, backend, precision)
    network = task.load().to(task.device)
    if ways == [PLAIN]:
        return Probed(
            chosen=_plain(task, "nothing faster is installed" if backend == precision == "auto" else "as asked")
        )
    pictures = task.golden(max(_FEWEST, task.batch_size + task.batch_size // 2 + 1))
    wanted = reference(network, pictures, task.stats)
    found, reasons = _fastest(task, ways, pictures, wanted)
    if found is None and PLAIN not in ways:
        raise ConfigError(f"{'; '.join(reasons)}; {PLAIN} is always there (--backend torch --precision fp32)")
    if found is None:
        return Probed(chosen=_plain(task, "; ".join(reasons)))
    speed = f"{found.per_second:.3g} pictures/s, " if found.per_second else ""
    sentence = "; ".join([f"{found.way}, batches of {task.batch_size}: {speed}{found.agreement}", *reasons])
    answer = {
        "name": found.way.name,
        "precision": found.way.precision,
        "per_second": found.per_second,
        "agreement": asdict(found.agreement),
        "sentence": sentence,
    }
    chosen = Chosen(
        backend=found.backend,
        way=found.way,
        threads=task.threads,
        agreement=found.agreement,
        sentence=sentence,
        remembered=False,
    )
    return Probed(chosen=chosen, kept=(answer, wanted))


def _plain(task: Task, why: str) -> Chosen:
    backend = task.build(PLAIN)
    sentence = f"{PLAIN}, batches of {backend.batch_size}: {why}"
    return Chosen(backend=backend, way=PLAIN, threads=task.threads, agreement=None, sentence=sentence, remembered=False)


def _fastest(task: Task, ways: list[Way], pictures: Pixels, wanted: Outputs) -> tuple[_Found | None, list[str]]:
    """The fastest that passes, if any, and why others did not."""
    best: _Found | None = None
    good: list[Way] = []
    reasons: list[str] = []
    start = time.perf_counter()
    for way in ways:
        if best is not None and time.perf_counter() - start > ENOUGH_S:
            break
        if way.precision == "fp32" and Way(way.name, "bf16") in good:
            continue  # it would be slower
        found = _tried(task, way, pictures, wanted)
        if isinstance(found, str):
            reasons.append(f"not {way}, as {found}")
            logger.warning("%s is not used: %s", way, found)
            continue
        good.append(way)
        best = found if best is None else _fastest_of([best, found], pictures)
    if best is not None and not best.per_second and len(ways) > 1:
        best = _fastest_of([best], pictures)
    return best, reasons


def _fastest_of(found: Sequence[_Found], pictures: Pixels) -> _Found:
    """The fastest of some, timed in turns, as a machine that does other work as well is never the same for long."""
    speeds = pictures_per_second([each.backend for each in found], pictures)
    timed = [replace(each, per_second=speed) for each, speed in zip(found, speeds, strict=True)]
    return max(timed, key=lambda each: each.per_second)


def _tried(task: Task, way: Way, pictures: Pixels, wanted: Outputs) -> _Found | str:
    """A way that was made ready and compared, or why it is of no use."""
    try:
        backend = task.build(way)
        found = gate.agreement(backend, wanted, pictures)
        why = gate.refusal(found, way.precision)
        return why if why is not None else _Found(way=way, backend=backend, agreement=found)
    except Exception as error:  # whatever a package raises, another way may be good
        logger.debug("%s", way, exc_info=True)
        return first_line(error)
