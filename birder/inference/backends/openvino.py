"""OpenVINO, the fastest there is for processors that multiply in bfloat16, and good on others."""

import contextlib
import logging
import secrets
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from birder.cores import available_cores
from birder.device import computes_bfloat16
from birder.errors import ConfigError, need
from birder.inference.backends.base import Backend, Outputs, check
from birder.inference.backends.batching import OneByOne, shape_of
from birder.inference.backends.whole import converting, whole
from birder.networks.base import Network

HINTS = {"fp32": "f32", "bf16": "bf16"}
_one_at_a_time = threading.Lock()
"""Converting sets what belongs to the whole process, such as filters of warnings."""


def openvino(
    network: Network | Callable[[], Network],
    *,
    batch_size: int,
    precision: str,
    threads: int = 0,
    folder: Path | None = None,
    pictures: Tensor | None = None,
) -> Backend:
    """The network in OpenVINO on the processor. See ``create`` in ``table``."""
    ov = _package()
    threads = threads or available_cores()
    # Of a quantised network, what is not quantised is computed in the fastest that there is.
    fastest = "bf16" if computes_bfloat16(torch.device("cpu")) else "fp32"
    properties = {
        "INFERENCE_PRECISION_HINT": HINTS[fastest if precision == "int8" else precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,  # each computes with one thread
        "ENABLE_CPU_PINNING": False,  # or two processes would share some cores and leave others idle
    }
    graph = _graph(ov, network, folder, pictures, precision == "int8")
    with converting("OpenVINO"):
        ready = _core().compile_model(graph, "CPU", properties)
    own = threading.local()

    def compute(images: Tensor) -> Outputs:
        if not hasattr(own, "request"):
            own.request = ready.create_infer_request()
        results = own.request.infer({0: images.contiguous().numpy()}, share_inputs=True)
        return Outputs(*(results[index].copy() for index in range(len(ready.outputs))))

    _, channels, height, width = graph.inputs[0].shape
    with converting("OpenVINO"):
        return OneByOne(f"openvino {precision}", compute, (batch_size, channels, height, width), threads)


def _package() -> ModuleType:
    # When it is imported, OpenVINO reports to its maker over the network, and writes to the user's home; without this
    # package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return need("openvino", extra="fast", purpose="the backend openvino")


@cache
def _core() -> Any:
    """OpenVINO's state, one for the whole process and never let go.

    For it gives the thread in which it begins another stack for signals, and if it ended in another thread it would
    take the stack away without putting the old one back: the next signal, such as the end of a child, would be the end.
    """
    return _package().Core()


def _graph(
    ov: ModuleType,
    network: Network | Callable[[], Network],
    folder: Path | None,
    pictures: Tensor | None,
    quantised: bool,
) -> Any:
    """The network as a graph for one picture: from the folder if it is there, else made and kept there."""
    if folder is None:
        # A graph that was just made computes the same in another order than one that was read: so all are read.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            return _graph(ov, network, Path(temporary), pictures, quantised)
    kept = folder / f"openvino-{ov.get_version().split('-')[0]}-{'int8' if quantised else 'float'}"
    if kept.is_dir():
        try:
            return _core().read_model(kept / "graph.xml")
        except RuntimeError:  # damaged, so it is made again
            shutil.rmtree(kept)
    _keep(ov, _converted(ov, network if isinstance(network, Network) else network(), pictures, quantised), kept)
    return _core().read_model(kept / "graph.xml")


def _converted(ov: ModuleType, network: Network, pictures: Tensor | None, quantised: bool) -> Any:
    with converting("OpenVINO"), _one_at_a_time, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the insides of the packages
        example = torch.zeros(shape_of(network, 1))
        graph = ov.convert_model(torch.export.export(whole(network, device=example.device), (example,)))
        graph.reshape(list(example.shape))
        return _quantised(graph, pictures) if quantised else graph


def _quantised(graph: Any, pictures: Tensor | None) -> Any:
    """The graph with weights and activations in int8 where that is safe; ranges are those that the pictures have."""
    nncf = need("nncf", extra="int8", purpose="int8")
    if pictures is None or not len(pictures):
        raise ConfigError("int8 learns its ranges from pictures: give some")
    check(pictures, (len(pictures), *graph.inputs[0].shape[1:]))
    attends = any(node.get_type_name() in ("ScaledDotProductAttention", "Softmax") for node in graph.get_ops())
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # its progress is not what was asked for
        return nncf.quantize(
            graph,
            nncf.Dataset([picture.numpy() for picture in pictures.cpu().split(1)]),
            subset_size=len(pictures),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
        )


def _keep(ov: ModuleType, graph: Any, kept: Path) -> None:
    """Write the graph, whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir()
        ov.save_model(graph, temporary / "graph.xml", compress_to_fp16=False)
        temporary.rename(kept)
    except OSError:
        if not kept.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
