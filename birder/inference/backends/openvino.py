"""OpenVINO, the fastest there is for processors that multiply in bfloat16, and good on others.

Torch is needed only to convert a network (``openvino_graph``), not to compute one that was converted before.
"""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from birder.cores import available_cores
from birder.data.fitting import Pixels
from birder.device import computes_bfloat16
from birder.errors import need
from birder.inference.backends.base import Backend, Outputs, converting
from birder.inference.backends.one_by_one import OneByOne
from birder.inference.rows import Floats
from birder.signature import RGBStats

if TYPE_CHECKING:
    from birder.networks.base import Network

_one_at_a_time = threading.Lock()

HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino(
    load: "Callable[[], Network]",
    stats: RGBStats,
    *,
    batch_size: int,
    precision: str,
    threads: int = 0,
    folder: Path | None = None,
    pictures: Pixels | None = None,
) -> Backend:
    """The network in OpenVINO on the processor. See ``create`` in ``table``."""
    ov = _package()
    threads = threads or available_cores()
    floats = precision
    if precision == "int8":  # what is not quantised is computed in the fastest that there is
        floats = "bf16" if computes_bfloat16("cpu") else "fp32"
    properties = {
        "INFERENCE_PRECISION_HINT": HINTS[floats],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,  # each computes with one thread
        "ENABLE_CPU_PINNING": False,  # or two processes would share some cores and leave others idle
    }

    def convert(kept: Path) -> None:
        from birder.inference.backends.openvino_graph import write_graph

        write_graph(ov, load(), stats, kept, quantised=precision == "int8", pictures=pictures)

    kind = "int8" if precision == "int8" else "float"
    graph = _graph(f"openvino-{ov.get_version().split('-')[0]}-{kind}", folder, convert)
    with converting("OpenVINO"):
        ready = _core().compile_model(graph, "CPU", properties)
    own = threading.local()

    def compute(images: Floats) -> Outputs:
        if not hasattr(own, "request"):
            own.request = ready.create_infer_request()
        results = own.request.infer({0: images}, share_inputs=True)
        return Outputs(*(results[index].copy() for index in range(len(ready.outputs))))

    _, channels, height, width = graph.inputs[0].shape
    shape = (batch_size, channels, height, width)
    return OneByOne(f"openvino {precision}", compute, shape=shape, stats=stats, threads=threads)


def _package() -> ModuleType:
    # When it is imported, OpenVINO reports to its maker over the network, and writes to the user's home; without this
    # package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return need("openvino", extra="fast", purpose="the backend openvino")


def _core() -> Any:
    """OpenVINO's state, one for the whole process and never let go.

    For it gives the thread in which it begins another stack for signals, and if it ended in another thread it would
    take the stack away without putting the old one back: the next signal, such as the end of a child, would be the end.
    """
    with _one_at_a_time:
        return _begun()


@cache
def _begun() -> Any:
    ov = _package()
    ops, core = ov.opset13, ov.Core()
    # The first inference of a process makes tables of Python's types. Two threads that do so at once wait for each
    # other for ever, one for the table and the other, which makes it, for Python's lock.
    number = ops.parameter([1], np.float32)
    first = core.compile_model(ov.Model([ops.relu(number)], [number], "first"), "CPU").create_infer_request()
    first.infer({0: np.zeros(1, np.float32)}, share_inputs=True)[0].copy()
    return core


def _graph(name: str, folder: Path | None, convert: Callable[[Path], None]) -> Any:
    """The network as a graph for one picture: from the folder if it is there, else made and kept there."""
    if folder is not None and (folder / name).is_dir():
        try:
            return _core().read_model(folder / name / "graph.xml")
        except RuntimeError:  # damaged, so it is made again
            shutil.rmtree(folder / name, ignore_errors=True)
    if folder is None or not _can_be_written(folder):
        # A graph that was just made computes the same in another order than one that was read: so all are read.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            return _graph(name, Path(temporary), convert)
    convert(folder / name)
    return _core().read_model(folder / name / "graph.xml")


def _can_be_written(folder: Path) -> bool:
    """Whether something can be put into a folder, which need not be there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
