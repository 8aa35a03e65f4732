"""A client of ``birder serve``: pictures go there, and rows come back, as ``birder predict`` would give them.

It needs no torch and no model. A ``Client`` may be used by several threads at a time.
"""

import base64
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from birder.errors import BirderError, ConfigError, ImageError, ServerError
from birder.inference.results.layout import known_status, text_of
from birder.inference.rows import Floats, Row
from birder.serving.connection import Connection, Picture, Sent

__all__ = ["Client", "Explanation", "ServerError", "SimilarPicture"]

log = logging.getLogger("birder")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What speaks for one answer, place by place."""

    heat: Floats
    """(H, W), which covers the whole upright picture, from 0 (nothing) to 1 (most)."""
    label: str
    """The class that is explained."""
    score: float
    """Its probability, 0-1."""
    method: str
    """How it was found: grad-cam or rollout."""


@dataclass(frozen=True, kw_only=True)
class SimilarPicture:
    """A picture of the server's index that looks alike to the network."""

    picture: int
    """Its number in the index."""
    name: str
    """Name of its file."""
    label: str
    """Name of its folder, which is mostly a species."""
    similarity: float
    """Cosine of the two embeddings, -1 to 1."""


class Client:
    """A server that is asked; best used in a ``with`` block."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 130.0, retries: int = 5) -> None:
        """Nothing is asked yet.

        Args:
            url: What ``birder serve`` has printed; with ``#token=…`` behind it, that is the token.
            token: What the server wants to be shown; None is that of ``url``, if there is one.
            timeout_s: So long may the server be silent, in seconds, until a try has failed.
            retries: How often a request is made again where the server does not answer, or has too much to do: after as
                many seconds as it says, unless these are more than two minutes.

        Raises:
            ConfigError: Something that is no address, or no token.
            MissingPackage: httpx2 is not installed.
        """
        self._server = Connection(url, token=token, timeout_s=timeout_s, retries=retries)
        self._noticed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def models(self) -> list[dict[str, Any]]:
        """What is served, the default first: ``name``, ``classes``, ``sha256`` and so on; see docs/serving.md.

        Raises:
            ServerError: The server does not answer, even after all tries, or cannot.
            ConfigError: It wants another token, or does not want to be asked so.
        """
        return self._server.read(self._server.ask("v1/models"), lambda answer: list(answer["models"]))

    def predict(
        self,
        picture: Picture,
        *,
        model: str | None = None,
        top: int | Literal["all"] = 5,
        min_score: float | None = None,
        species: Sequence[str] = (),
    ) -> Row:
        """Name the species in a picture.

        Args:
            picture: A path, or the bytes of a file. One that cannot be read is a row with the status ``error``.
            model: One of ``models``; None is the server's default.
            top: How many answers, the most probable first; or all.
            min_score: An answer with a lower score is ``unsure``, 0-1; None is the server's choice.
            species: Only these may be named; none is all of them.

        Raises:
            UnknownName: The server has no such model.
            ServerError, ConfigError: As in ``models``.
        """
        return self._predicted(picture, dict(model=model, top=top, min_score=min_score), species)

    def stream(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        at_once: int = 8,
        model: str | None = None,
        top: int | Literal["all"] = 5,
        min_score: float | None = None,
        species: Sequence[str] = (),
    ) -> Iterator[Row]:
        """Name the species in any number of files: a row for each, in the same order, as ``predict`` gives it.

        A file is read while it is sent. Of the paths, at most ``2 * at_once`` are taken ahead.

        Args:
            paths: Files; may be without end.
            at_once: So many requests are under way at a time, at most.
            model: As in ``predict``, and so are ``top``, ``min_score`` and ``species``.
            top: See there.
            min_score: See there.
            species: See there.

        Raises:
            UnknownName, ServerError, ConfigError: As in ``predict``; the message also says how many files were done.
        """
        if at_once < 1:
            raise ConfigError(f"at_once must be 1 or more, not {at_once}")
        question, stopped = dict(model=model, top=top, min_score=min_score), threading.Event()
        return self._in_order(
            paths, at_once, stopped, lambda path: self._predicted(path, question, species, stopped=stopped)
        )

    def embed(self, picture: Picture, *, model: str | None = None) -> Row:
        """What a picture looks like to a network: a row with an ``embedding``, without names.

        Raises:
            UnknownName, ServerError, ConfigError: As in ``predict``.
        """
        return self._row("v1/embed", Sent(picture), dict(model=model))[0]

    def similar(self, picture: Picture, count: int = 5, *, model: str | None = None) -> list[SimilarPicture]:
        """The pictures of the server's index that look most alike; none for a picture that cannot be read.

        Raises:
            UnknownName, ServerError, ConfigError: As in ``predict``.
        """
        values = self._row("v1/predict", Sent(picture), dict(model=model, top=1, similar=count))[1]
        return self._server.read(values, lambda row: [SimilarPicture(**each) for each in row.get("similar", ())])

    def explain(
        self, picture: Picture, label: str | None = None, *, model: str | None = None, method: str = "auto"
    ) -> Explanation:
        """What in a picture speaks for a class.

        Args:
            picture: A path, or the bytes of a file.
            label: The class; None is the most probable one.
            model: As in ``predict``.
            method: auto, grad-cam or rollout.

        Raises:
            ImageError: The picture cannot be read.
            UnknownName, ServerError, ConfigError: As in ``predict``.
        """
        question = dict(model=model, label=label, method=method)
        return self._server.read(self._server.ask("v1/explain", question, Sent(picture)), _explanation)

    def _predicted(
        self,
        picture: Picture,
        question: Mapping[str, Any],
        species: Sequence[str],
        *,
        stopped: threading.Event | None = None,
    ) -> Row:
        return self._row("v1/predict", Sent(picture, species), question, stopped)[0]

    def _row(
        self, target: str, sent: Sent, question: Mapping[str, Any], stopped: threading.Event | None = None
    ) -> tuple[Row, dict[str, Any]]:
        """What became of a picture, and the values that the server sent; a picture that cannot be read has none."""
        try:
            answer = self._server.ask(target, question, sent, stopped=stopped)
        except ImageError as error:
            return Row(path=sent.path, status="error", reason=error.reason, stamp=sent.stamp), {}
        values = self._server.read(answer, lambda answer: answer["rows"][0])
        notice = answer.get("notice", "")
        if notice and notice not in self._noticed:
            self._noticed.add(notice)
            log.warning("%s", notice)
        return self._server.read(values, lambda values: _as_row(sent, values)), values

    def _in_order(
        self, paths: Iterable[Any], at_once: int, stopped: threading.Event, ask: Callable[[Any], Row]
    ) -> Iterator[Row]:
        waiting: deque[tuple[Any, Future[Row]]] = deque()
        done = count()
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="birder-client")
        try:
            for path in paths:
                waiting.append((path, pool.submit(ask, path)))
                while waiting and (len(waiting) == 2 * at_once or waiting[0][1].done()):
                    yield _first(waiting, next(done))
            while waiting:
                yield _first(waiting, next(done))
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _first(waiting: "deque[tuple[Any, Future[Row]]]", done: int) -> Row:
    """The row of the path that has waited longest; an error also says how far the work had come."""
    path, future = waiting.popleft()
    try:
        return future.result()
    except BirderError as error:
        error.args = (f"{error}; {done} pictures have their rows, the next one is {text_of(os.fspath(path))}",)
        raise


def _as_row(sent: Sent, values: Mapping[str, Any]) -> Row:
    answers = values.get("answers", ())
    embedding = values.get("embedding")
    return Row(
        path=sent.path,
        status=known_status(values["status"]),
        reason=values["reason"],
        labels=tuple(answer["label"] for answer in answers),
        scores=tuple(float(answer["score"]) for answer in answers),
        open_scores=tuple(float(each["open_score"]) for each in answers if each.get("open_score") is not None),
        novelty=None if values.get("novelty") is None else float(values["novelty"]),
        taken=values["taken"],
        embedding=None if embedding is None else np.asarray(embedding, np.float32),
        stamp=sent.stamp,
    )


def _explanation(values: Mapping[str, Any]) -> Explanation:
    heat = values["heat"]
    levels = np.frombuffer(base64.b64decode(heat["values"], validate=True), np.uint8)
    return Explanation(
        heat=levels.reshape(heat["height"], heat["width"]).astype(np.float32) / np.float32(255),
        label=values["label"],
        score=float(values["score"]),
        method=values["method"],
    )
