"""Prediction on many machines, by Ray Data: it shares the work out, and begins anew what was lost with a worker.

Every machine must see the pictures and the model under the same paths, and have the same birder installed. Rows come
back in the order of the inputs, and who started it writes them down; so journal and output are those of one machine.
"""

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Self

import birder
from birder.data.fitting import Pixels
from birder.errors import BirderError, ConfigError, need
from birder.hub import checksum
from birder.inference.backends.base import Backend, Pending
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.rows import BLOCK, Row

logger = logging.getLogger("birder")

_TOGETHER = 4 * BLOCK  # pictures of one task: a worker reads those of the next batch while it computes one
_MOST_TASKS = 32  # for each worker, that Ray has at a time: with those all paths in memory, and all rows that wait
_ANSWER_S = 5.0  # of a cluster that is there
_MOST_THREADS = 8  # of a worker: more workers are faster than more threads


@dataclass(frozen=True)
class _Question:
    """What a worker needs to know to become a predictor."""

    model: Path
    digest: str
    version: str
    options: Options
    network: str | None
    embeddings: bool


@dataclass
class _Elsewhere(Backend):
    """What is known here of a backend that is in other processes."""

    name: str
    device: str
    batch_size: int

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        raise ConfigError(f"{self.name} computes on the cluster, not here")


class Cluster:
    """Stands for a predictor that all machines of a Ray cluster are together; no network is loaded here.

    The cluster is the one that Ray finds: ``RAY_ADDRESS``, the one this machine belongs to, or else this machine alone,
    for which Ray is started and, by ``close``, ended. Backend, precision and size of batches are decided by one worker
    for all. A machine with another model file or another version of birder under these names is an error.

    Attributes:
        network_name: As of ``Predictor``.
        size: The same.
        names: The same.
        layout: The same.
        chosen: What computes, see ``Chosen``; its backend is in the workers.
        workers: How many tasks are computed at once.
    """

    def __init__(self, model: Path, options: Options, *, network: str | None = None, embeddings: bool = False) -> None:
        """Find the cluster, and load the model in one worker.

        Args:
            model: The model file, where each machine finds it.
            options: As for ``Predictor``; ``threads`` and ``workers`` are what each worker on the cluster has: by
                default up to 8 of the processor, and as many processes that read, of which there is one at least.
            network: As for ``Predictor``.
            embeddings: As for ``Predictor``.

        Raises:
            MissingPackage: Ray is not installed.
            ConfigError: There is no cluster where it should be, or as for ``Predictor``; and what else that raises.
        """
        with _quiet():
            self._ray = need("ray", extra="cluster", purpose="--cluster ray")
            need("ray.data", extra="cluster", purpose="--cluster ray")
            self._ours = _connected(self._ray)
        try:
            self._resources, self.workers = _shared_out(self._ray, options)
            known = Path(os.path.abspath(model))
            here = _placed(options, self._resources["num_cpus"])
            question = _Question(known, checksum.sha256(known), birder.__version__, here, network, embeddings)
            self._introduce(question)
        except BaseException:
            self.close()
            raise

    def _introduce(self, question: _Question) -> None:
        task = self._ray.remote(_introduced).options(**self._resources)
        with _of_ray(self._ray):
            answer = _opened(self._ray.get(task.remote(question)))
        self.network_name, self.size, self.names, self.layout, self.chosen, records = answer
        way = self.chosen.way
        decided: dict[str, Any] = {"backend": way.name, "precision": way.precision, "batch_size": self.batch_size}
        self._question = replace(question, options=replace(question.options, **decided))
        for record in records:
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)

    @property
    def batch_size(self) -> int:
        """How many pictures go through the network together."""
        return self.chosen.backend.batch_size

    def run(self, batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        """The rows of each batch of paths, of at most ``batch_size``, in their order.

        Some thousand paths for each worker are taken ahead, fewer at first so that rows come soon.

        Raises:
            ConfigError: While running: a worker cannot compute this, or the cluster is gone.
        """
        rest = iter(batches)
        tasks = iter(lambda: list(islice(rest, max(1, _TOGETHER // self.batch_size))), [])
        count = self.workers
        while wave := list(islice(tasks, count)):
            # What is not closed would go on, or even start Ray again.
            with closing(self._computed(wave)) as computed:
                for task, answers in zip(wave, computed, strict=True):
                    for batch, rows in zip(task, answers, strict=True):
                        yield [replace(row, path=path) for row, path in zip(rows, batch, strict=True)]
            count = min(2 * count, _MOST_TASKS * self.workers)

    def close(self) -> None:
        """Leave the cluster, whatever it is at; end it if it was started here."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _computed(self, wave: list[list[list[str]]]) -> Generator[list[list[Row]], None, None]:
        """The answers to some tasks, in their order."""
        # Relative paths start from the folder of this process, which is none of the workers'.
        items = [{"task": pickle.dumps([list(map(_absolute, batch)) for batch in task])} for task in wave]
        with _of_ray(self._ray):
            with _quiet(), _in_order(self._ray) as data:
                rows = data.from_items(items, override_num_blocks=len(items)).map(
                    _answered, fn_args=(self._question,), **self._resources
                )
            # Ray computes ahead anyway; with a block ahead, the first rows would wait for the second task.
            with closing(iter(rows.iter_batches(batch_size=None, prefetch_batches=0))) as blocks:
                for block in blocks:
                    for answer in block["rows"]:
                        yield _opened(answer)


def _introduced(question: _Question) -> bytes:
    """In a worker: what there is to know of the predictor, and what was said when it was made."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        predictor = _predictor(question)
    except BirderError as error:
        return pickle.dumps(error)
    finally:
        logger.removeHandler(handler)
    backend = predictor.chosen.backend
    chosen = replace(predictor.chosen, backend=_Elsewhere(backend.name, backend.device, backend.batch_size))
    said = [records.get() for _ in range(records.qsize())]
    return pickle.dumps((predictor.network_name, predictor.size, predictor.names, predictor.layout, chosen, said))


def _answered(item: dict[str, bytes], question: _Question) -> dict[str, bytes]:
    """In a worker: the rows of one task, or the error that ends the run."""
    try:
        return {"rows": pickle.dumps(list(_predictor(question).run(pickle.loads(item["task"]))))}
    except BirderError as error:
        return {"rows": pickle.dumps(ConfigError(f"{socket.gethostname()}: {error}"))}


@lru_cache(maxsize=1)
def _predictor(question: _Question) -> Predictor:
    """The predictor of this process, which Ray keeps for one task after the other."""
    if (birder.__version__, checksum.sha256(question.model)) != (question.version, question.digest):
        raise ConfigError(f"another version of birder than {question.version}, or another {question.model}")
    return Predictor(question.model, question.options, network=question.network, embeddings=question.embeddings)


def _opened(answer: bytes) -> Any:
    opened = pickle.loads(answer)
    if isinstance(opened, BirderError):
        raise opened
    return opened


def _connected(ray: ModuleType) -> bool:
    """Connect to a cluster; whether that is for us to end."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its maker over the network
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what that will be some day
    try:
        ray.init(_address(), logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster could be joined or started: {error}") from error
    return True


def _address() -> str | None:
    """None to let Ray find its cluster, or ``local`` for one of this machine alone.

    A cluster that was killed leaves its address behind, and Ray would wait for it for ever.
    """
    if os.environ.get("RAY_ADDRESS"):
        return None
    note = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        host, _, port = note.read_text(encoding="utf-8").strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError):
        return "local"
    return None


def _shared_out(ray: ModuleType, options: Options) -> tuple[dict[str, int], int]:
    """What each worker gets, and how many workers that makes."""
    totals = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wants_gpu = options.device == "auto" or options.device.startswith("cuda")
    gpus = sum(int(total.get("GPU", 0)) for total in totals) if wants_gpu else 0
    # A head that only looks after the others has no processors to give.
    cores = [int(total["CPU"]) for total in totals if total.get("CPU", 0) >= 1 and (total.get("GPU", 0) or not gpus)]
    if not cores:
        raise ConfigError("no machine of the Ray cluster has a processor to give")
    threads = options.threads or min(_MOST_THREADS, *cores)
    if gpus:
        return {"num_cpus": min(threads, *cores), "num_gpus": 1}, gpus
    return {"num_cpus": threads}, max(1, sum(number // threads for number in cores))


def _placed(options: Options, threads: int) -> Options:
    """Options as the workers take them."""
    # A task is repeated until its worker survives it; so what kills a decoder must not kill the worker.
    workers = threads if options.workers is None else max(1, options.workers)
    classes = None if options.classes is None else Path(os.path.abspath(options.classes))
    return replace(options, threads=threads, workers=workers, classes=classes)


def _absolute(path: str) -> str:
    return os.path.join(os.getcwd(), path) if path else path


@contextmanager
def _in_order(ray: ModuleType) -> Iterator[ModuleType]:
    """Ray Data, making data sets that give rows in the order of what they are made from."""
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield ray.data
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


@contextmanager
def _of_ray(ray: ModuleType) -> Iterator[None]:
    """Ray's own errors in one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        raise ConfigError(f"the Ray cluster failed: {lines[-1] if lines else type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray has to warn its own developers of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
