"""From names of models to a server that runs until it is told to stop."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from birder.errors import ConfigError, DataError
from birder.inference.options import Work
from birder.inference.reading import Readers
from birder.inference.ready import Model, reading_processes
from birder.serving.app import create_app
from birder.serving.metrics import Metrics
from birder.serving.models import Served
from birder.serving.problems import Problem
from birder.serving.settings import Settings
from birder.serving.similar import Similar
from birder.serving.species import SpeciesNames, read_names

logger = logging.getLogger("birder")

_AT_ONCE = 130  # exit code after a second Ctrl-C
_HEAD_S = 10.0  # for the head of a request; a body has the time of the settings
_KEEP_ALIVE_S = 15
_SWITCH_S = 0.0005  # so long may one thread keep Python to itself; those that read wait for the event loop often
_EVERYWHERE = ("0.0.0.0", "::", "")
_MOST_CONNECTIONS = 1000  # more are closed at once
_BACKLOG = 100
_OTHER_FILES = 200  # that the process may need beside its connections


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What is served."""

    models: Sequence[str] = ("starter",)
    """Names of published models, and model files; the first is the default."""
    work: Work = Work()
    """How pictures are read, and how networks compute."""
    min_score: float | Literal["auto"] = 0.0
    """Pictures whose best score is lower are unsure; auto is the threshold that birder calibrate found."""
    indexes: Sequence[Path] = ()
    """Tables that birder embed wrote, each with the embeddings of one of the models."""
    names: Path | None = None
    """Names of species in other languages; see ``read_names``."""


def serve(offer: Offer, settings: Settings, ready: Callable[[str], None] = lambda address: None) -> int:
    """Answer requests until SIGTERM or Ctrl-C; what was accepted by then is finished.

    Args:
        offer: What is served.
        settings: How, and to whom.
        ready: Called with the address, such as ``http://127.0.0.1:8000/``, when the first request can come.

    Returns:
        0. A second Ctrl-C ends the process, with 130; what was accepted is not waited for.

    Raises:
        ConfigError: No processes that read, the port is taken, two models have one name, or nothing here computes a
            network as was asked.
        DataError: An index cannot be read.
        UnknownName: No such published model.
        ModelFileError: A file is no usable model.
    """
    if offer.work.workers == 0:
        raise ConfigError("workers: a server needs processes that read, as what is sent may crash a decoder")
    with ExitStack() as stack:
        stack.enter_context(_handled(_leave, signal.SIGTERM))
        bound = stack.enter_context(closing(_bound(settings)))  # so that a port in use is told at once
        # A file that hangs a decoder is given up long before the request is, and those that wait behind it.
        patience = min(offer.work.timeout, settings.limits.request_seconds / 4)
        readers = stack.enter_context(Readers(reading_processes(offer.work), timeout=patience))
        metrics = Metrics()
        models = _models(offer, readers, metrics)
        server = _Server(
            uvicorn.Config(
                create_app(models, settings, metrics),
                http=partial(_Guarded, seconds=settings.limits.request_seconds, most=_most_connections()),  # type: ignore[arg-type]  # is called like it
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(settings.limits.request_seconds) + 5,
            ),
            partial(ready, _address(settings, bound)),
            readers.close,
        )
        sys.setswitchinterval(_SWITCH_S)
        server.run(sockets=[bound])
        return 0


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Signals, if this is the thread that gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing has been accepted yet."""
    sys.exit(0)


class _Server(uvicorn.Server):
    """Says when it has started, and ends in order at a signal, by which its process would otherwise die."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], abandon: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._abandon = ready, abandon

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                logger.info("stopping: what was accepted is finished")
                self.should_exit = True
            elif number == signal.SIGINT:
                self._abandon()
                os._exit(_AT_ONCE)  # nothing is written that could be left half

        with _handled(stop, signal.SIGINT, signal.SIGTERM):
            yield


class _Guarded(H11Protocol):
    """Ends connections that uvicorn would keep: on which a request does not arrive, or an answer is not taken."""

    def __init__(self, *arguments: Any, seconds: float, most: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._seconds, self._most = seconds, most
        self._arriving = _Alarm(self.loop)
        self._leaving = _Alarm(self.loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arriving.stop()
        self._leaving.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._leaving.start("answer", self._seconds, self._give_up)

    def resume_writing(self) -> None:
        self._leaving.stop()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # so little is left that nobody was paused
            self._leaving.start("rest", self._seconds, self._give_up)

    def _give_up(self) -> None:
        """End the connection if there is something left that was not taken."""
        self._leaving.stop()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, as everything is refused."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            detail = "this is no request of HTTP/1.1, or its head is too long"
            answer = Problem("bad-request", detail, headers={"Connection": "close"}).response()
            head = h11.Response(status_code=answer.status_code, headers=answer.raw_headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Wait for the beginning of a request, or for the rest; a slow body gets an answer before."""
        state = self.conn.their_state
        if state is h11.IDLE:
            self._arriving.start("head", min(_HEAD_S, self._seconds), self.transport.close)
        elif state is h11.SEND_BODY:
            self._arriving.start("body", 2 * self._seconds, self.transport.close)
        else:
            self._arriving.stop()


class _Alarm:
    """Calls something if what is awaited does not come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._what = loop, ""
        self._timer: asyncio.TimerHandle | None = None

    def start(self, what: str, seconds: float, end: Callable[[], None]) -> None:
        if self._what != what:
            self.stop()
            self._what, self._timer = what, self._loop.call_later(seconds, end)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._what, self._timer = "", None


def _most_connections() -> int:
    """As many as there can be, with files left for what has to be opened; the limit is raised as far as it may be."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * (_MOST_CONNECTIONS + _OTHER_FILES)
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except (ImportError, OSError, ValueError):  # Windows, which has no such limit; or it may not be raised
        return _MOST_CONNECTIONS
    return min(_MOST_CONNECTIONS, max(10, soft - _OTHER_FILES))


def _bound(settings: Settings) -> socket.socket:
    """A socket at the address, which does not listen yet.

    Raises:
        ConfigError: It is taken, may not be used, or is no address of this computer.
    """
    where = f"--host {settings.host} --port {settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}") from error
    try:
        if os.name == "posix":  # on Windows, it would let two servers have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(f"{where}: {error.strerror or error}; --port 0 takes any that is free") from error
    return bound


def _address(settings: Settings, bound: socket.socket) -> str:
    host = settings.host if settings.host not in _EVERYWHERE else _own_address() or settings.host
    host = f"[{host}]" if ":" in host else host
    token = f"#token={settings.token}" if settings.token else ""
    return f"http://{host}:{bound.getsockname()[1]}/{token}"


def _own_address() -> str:
    """By which others in the network reach this computer, as far as can be told; nothing is sent for that."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # an address of documentation, to which there is a way as to any other
        return str(probe.getsockname()[0])
    return ""


def _models(offer: Offer, readers: Readers, metrics: Metrics) -> list[Served]:
    """All of them, made ready."""
    found: dict[str, Model] = {}
    for model in offer.models:
        name = _name(model)
        if name in found:
            raise ConfigError(f"two models are called {name}: give one of their files another name")
        found[name] = Model(model)
    indexes = _indexes(offer.indexes, found)
    names = {} if offer.names is None else _names(offer.names, found)
    models = []
    for name, one in found.items():
        ready = one.ready(offer.work)
        logger.info("%s: %s", name, ready.chosen.sentence)
        models.append(
            Served(
                name,
                one,
                ready,
                readers,
                work=offer.work,
                min_score=offer.min_score,
                similar=indexes.get(name),
                names=names.get(name),
                watch=partial(metrics.batch, name),
            )
        )
    return models


def _name(model: str) -> str:
    """Of a model file its name without the ending, of a published model itself."""
    path = Path(model)
    return path.stem if path.suffix in (".pt", ".safetensors") else model


def _names(path: Path, models: dict[str, Model]) -> dict[str, SpeciesNames]:
    """The names in other languages of each model that the table has any of.

    Raises:
        DataError: It cannot be read, or has none of any model.
    """
    found: dict[str, SpeciesNames] = {}
    errors = []
    for name, one in models.items():
        if one.known.num_classes == 0:
            continue
        try:
            found[name] = read_names(path, one.names)
        except DataError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for notice in filter(None, [*map(str, errors), *(names.notice for names in found.values())]):
        logger.warning("%s", notice)
    return found


def _indexes(paths: Sequence[Path], models: dict[str, Model]) -> dict[str, Similar]:
    """The index of each model that has one.

    Raises:
        ConfigError: A table is of none of the models, or a second one of the same.
    """
    found: dict[str, Similar] = {}
    for path in paths:
        reasons = []
        for name, one in models.items():
            try:
                similar = Similar.from_file(path, model_digest=one.digest, embedding_size=one.known.embedding_size)
            except ConfigError as error:
                reasons.append(str(error))
                continue
            if name in found:
                raise ConfigError(f"--index {path}: {name} has an index already")
            found[name] = similar
            break
        else:
            raise ConfigError(f"--index {reasons[0]}")
    return found
