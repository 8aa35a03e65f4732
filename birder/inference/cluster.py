"""Prediction on many machines, by Ray Data: it shares batches out, and begins those anew whose worker is gone.

Every machine must see the pictures and the model under the same paths, and have birder installed. Rows come back in the
order of the inputs, and the one who started it writes them down; so journal and output are those of a single machine.
"""

import logging
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from birder.errors import need
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.rows import Row

_TOGETHER = 8  # batches of one task, so that a worker reads the next while it computes one
_WAVE = 256  # tasks that are handed to Ray at once
_MOST_THREADS = 8  # of one worker: more workers are faster than more threads

_Columns = Mapping[str, np.ndarray[Any, Any]]


def cluster_stream(
    model: Path, options: Options, *, network: str | None = None, embeddings: bool = False
) -> Callable[[Iterable[list[str]]], Generator[list[Row], None, None]]:
    """A stream of rows as ``Predictor.run`` gives it, computed by all machines of a Ray cluster.

    The cluster is the one that Ray finds (``RAY_ADDRESS``, or the one this machine belongs to); without any, this
    machine alone. Backend and precision should be set, as machines of different kinds would choose differently.

    Args:
        model: The model file, where each machine finds it.
        options: As for ``Predictor``; ``threads`` is what each worker gets, 0 is up to 8.
        network: As for ``Predictor``.
        embeddings: As for ``Predictor``.

    Raises:
        MissingPackage: Ray is not installed.
    """
    ray = need("ray", extra="cluster", purpose="--cluster ray")
    need("ray.data", extra="cluster", purpose="--cluster ray")
    _connect(ray)
    threads = options.threads or min(_MOST_THREADS, *(int(node["Resources"].get("CPU", 1)) for node in ray.nodes()))
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)

    def stream(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        rest = iter(batches)
        tasks = iter(lambda: list(islice(rest, _TOGETHER)), [])
        while wave := list(islice(tasks, _WAVE)):
            with _in_order(ray) as data:
                done = data.from_items([{"batches": pickle.dumps(task)} for task in wave]).map_batches(
                    _Worker,
                    fn_constructor_args=(model, options, threads, network, embeddings),
                    batch_size=1,
                    num_cpus=threads,
                    concurrency=min(workers, len(wave)),
                )
                for answer in done.iter_rows():
                    yield from pickle.loads(answer["rows"])

    return stream


class _Worker:
    """A process on some machine, with the model loaded."""

    def __init__(self, model: Path, options: Options, threads: int, network: str | None, embeddings: bool) -> None:
        from dataclasses import replace

        self.predictor = Predictor(model, replace(options, threads=threads), network=network, embeddings=embeddings)

    def __call__(self, tasks: _Columns) -> dict[str, list[bytes]]:
        """The rows of one task."""
        return {"rows": [pickle.dumps(list(self.predictor.run(pickle.loads(task)))) for task in tasks["batches"]]}


def _connect(ray: ModuleType) -> None:
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False, include_dashboard=False)


@contextmanager
def _in_order(ray: ModuleType) -> Iterator[ModuleType]:
    """Ray Data, giving rows in the order of what they are made from."""
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield ray.data
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before
