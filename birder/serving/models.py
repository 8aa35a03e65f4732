"""A model as it is served: pictures in memory to rows, embeddings and explanations.

Shapes: V views, K classes, D size of the embedding.
"""

import asyncio
import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from birder.data.fitting import Fit, Pixels
from birder.data.transforms import classification_transform
from birder.errors import UnknownName, suggestion
from birder.explain import Method, explain, overlay
from birder.explain.explanation import Heat, chosen_method
from birder.inference.answers import Answers, embedded
from birder.inference.checklist import Checklist
from birder.inference.options import Work
from birder.inference.reader import Read, Request
from birder.inference.reading import Readers
from birder.inference.ready import Model, Ready, row_of
from birder.inference.rows import Floats, Row
from birder.serving.batcher import Batcher
from birder.serving.similar import Neighbour, Similar
from birder.serving.species import SpeciesNames
from birder.serving.uploads import Upload

_LONGEST_OVERLAY = 640
_THUMBNAIL = Fit((240, 240), simple_crop=True)
_CHECKLISTS = 32  # that are remembered, as pages send the same with each picture
_LARGEST_REMEMBERED = 1 << 19  # letters


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A picture, and what became of it."""

    row: Row
    """Without a path that leads anywhere: the sender's name."""
    size: tuple[int, int]
    """Width and height of the upright picture."""
    similar: list[Neighbour] = field(default_factory=list)
    """Pictures of the index, the most similar first."""


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Where an answer comes from."""

    label: str
    """The class that is explained."""
    score: float
    """Its probability."""
    method: str
    """grad-cam or rollout."""
    heat: Heat
    """(H, W), 0-1, of the whole picture."""
    seen: Read
    """The picture."""


class Served:
    """A model that answers to pictures in memory. To be used from one event loop.

    Attributes:
        name: What it is asked for by.
        model: What is known of it.
        network: The network itself, in evaluation mode.
        ready: What computes it.
        similar: Its index; None without.
        names: Names of its classes in other languages; None without.
        min_score: Pictures whose best score is lower are unsure.
        card: What there is to know of the model, Markdown; empty without.
        batcher: What puts pictures of several requests together.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        ready: Ready,
        readers: Readers,
        *,
        work: Work = Work(),  # noqa: B008
        min_score: float | str = 0.0,
        similar: Similar | None = None,
        names: SpeciesNames | None = None,
        watch: Callable[[int, float], None] = lambda pictures, seconds: None,
    ) -> None:
        """What it is called, what it is, what reads for it, and what it knows beside.

        Args:
            name: See above.
            model: The model.
            ready: What computes it.
            readers: They take one file at a time; see ``Readers``.
            work: How pictures are read.
            min_score: See above; ``auto`` is the threshold that ``birder calibrate`` has found.
            similar: See above.
            names: See above.
            watch: Told of each batch, its pictures and seconds.

        Raises:
            ConfigError: A score that makes no sense, or ``auto`` of a model without threshold.
        """
        self.name, self.model, self.ready = name, model, ready
        self.similar, self.names = similar, names
        self._readers, self._work = readers, work
        self.card = _card(model.path)  # now, and the network too, as the server does not need its files any more
        self.network = model.network.to(ready.chosen.backend.device)
        self.classifies = model.known.num_classes > 0
        self.min_score = model.answers(min_score=min_score).min_score if self.classifies else 0.0
        self.batcher: Batcher[Row] = Batcher(ready, watch=watch)
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="birder-explain")
        self._checklist = lru_cache(_CHECKLISTS)(self._found)

    def close(self) -> None:
        """Let go of the threads."""
        self.batcher.close()
        self._explaining.shutdown(wait=False, cancel_futures=True)

    @property
    def working(self) -> bool:
        """Whether it can answer."""
        return self._readers.working

    async def checklist(self, names: Sequence[str]) -> Checklist | None:
        """The classes of these names; None of no names.

        Raises:
            ConfigError: None of them is known.
        """
        if not names:
            return None
        find = self._checklist if sum(map(len, names)) < _LARGEST_REMEMBERED else self._found
        return await asyncio.to_thread(find, tuple(names))

    def answers(self, *, top: int | None, min_score: float | None, checklist: Checklist | None) -> Answers:
        """What makes rows; see ``Model.answers``."""
        least = self.min_score if min_score is None else min_score
        return self.model.answers(top=top, min_score=least, checklist=checklist)

    async def predicted(self, upload: Upload, answers: Answers, similar: int = 0) -> Seen:
        """What a picture shows, and so many pictures of the index that resemble it."""
        neighbours: list[Neighbour] = []

        def finish(row: Row, logits: Floats, embeddings: Floats) -> Row:
            (named,) = answers([row], logits, embeddings)
            if self.similar is not None and similar:
                neighbours.extend(self.similar.nearest(embeddings.mean(axis=0), similar)[0])
            return named

        seen = await self._seen(upload, finish)
        return replace(seen, similar=neighbours)

    async def embedded(self, upload: Upload) -> Seen:
        """The embedding of a picture."""
        return await self._seen(upload, lambda row, logits, embeddings: embedded([row], embeddings.mean(axis=0))[0])

    async def check_explanation(self, label: str, method: Method) -> None:
        """Accept a class, empty for the best answer, and a way to explain it.

        Raises:
            UnknownName: There is no such class.
            ConfigError: The network cannot be explained in this way.
        """
        if label and label not in self.model.names:
            near = await asyncio.to_thread(suggestion, label[:100], self.model.names)
            raise UnknownName(f"the model has no class {label[:100]!r}{near}")
        chosen_method(self.network, method)

    async def explained(self, upload: Upload, label: str | None, method: Method) -> Reasons | Row:
        """Where an answer comes from, the best one if no label is given; or the row of a picture that has none.

        Raises:
            NotFinite: The answer is no number.
        """
        read = await self._read(upload, self.model.fit)
        if read.pixels is None:
            return row_of(read)
        answers = self.model.answers(top=None if label else 1)
        row = await self.batcher(read.pixels, lambda *outputs: answers([row_of(read)], *outputs)[0])
        if not row.labels:
            return row
        label = label or row.labels[0]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._explaining, self._explanation, read.pixels, self.model.names.index(label), method
        )
        score = row.scores[row.labels.index(label)]
        return Reasons(label=label, score=score, method=found[1], heat=found[0], seen=read)

    async def overlay(self, upload: Upload, reasons: Reasons) -> bytes:
        """A PNG of the picture, its longer side at most 640, with the heat laid over it."""
        width, height = reasons.seen.size
        scale = min(1.0, _LONGEST_OVERLAY / max(width, height))
        read = await self._read(upload, Fit((max(1, round(height * scale)), max(1, round(width * scale)))))
        pixels = reasons.seen.pixels if read.pixels is None else read.pixels
        assert pixels is not None, "what has reasons has been read"
        return await asyncio.to_thread(_png, pixels, reasons.heat)

    async def thumbnail(self, number: int) -> bytes | None:
        """A square JPEG of a picture of the index; None if it is not there any more."""
        assert self.similar is not None, "asked only of those that have an index"
        request = Request(self.similar.paths[number], _THUMBNAIL)
        pixels = (await asyncio.wrap_future(self._readers.submit(request))).pixels
        return None if pixels is None else await asyncio.to_thread(_jpeg, pixels)

    async def _seen(self, upload: Upload, finish: Callable[[Row, Floats, Floats], Row]) -> Seen:
        read = await self._read(upload, self.model.fit)
        row = replace(row_of(read), path=upload.name)
        if read.pixels is not None:
            row = await self.batcher(read.pixels, lambda *outputs: finish(row, *outputs))
        return Seen(row=row, size=read.size)

    async def _read(self, upload: Upload, fit: Fit) -> Read:
        # Without its name: what is sent is never looked for on a disk.
        work, content = self._work, upload.content
        request = Request("", fit, exact=work.exact, truncated=work.truncated == "read", content=content)
        return await asyncio.wrap_future(self._readers.submit(request))

    def _found(self, names: tuple[str, ...]) -> Checklist:
        return Checklist.from_names(names, self.model.names)

    def _explanation(self, pixels: Pixels, label: int, method: Method) -> tuple[Heat, str]:
        transform = classification_transform(self.model.known.size, self.model.known.rgb_stats)
        image = transform.normalize(torch.from_numpy(pixels).permute(2, 0, 1))
        # Whatever computes has a copy of its own, which shares the weights; so this one may be looked into.
        found = explain(self.network, image, label=label, method=method)
        return found.heat, found.method


def encoded(heat: Heat) -> str:
    """Base64 of a byte for each value."""
    return base64.b64encode(np.rint(heat * 255).astype(np.uint8).tobytes()).decode()


def _png(pixels: Pixels, heat: Heat) -> bytes:
    file = io.BytesIO()
    overlay(Image.fromarray(pixels), heat).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _jpeg(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def _card(path: Path) -> str:
    """What stands beside a model file; empty if there is nothing."""
    places = [path.with_suffix(".md")] + [path.with_name("README.md")] * (path.stem == path.parent.name)
    text = next((place.read_text(encoding="utf-8", errors="replace") for place in places if place.is_file()), "")
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return "\n".join(lines).strip()
