"""ONNX Runtime, which is small and everywhere."""

import tempfile
import threading
import warnings
from pathlib import Path

import torch

from birder.errors import need
from birder.inference.backends.base import Backend, Outputs, converting, tried
from birder.inference.backends.one_by_one import OneByOne
from birder.inference.backends.whole import shape_of, whole
from birder.inference.rows import Floats
from birder.networks.base import Network
from birder.signature import RGBStats

OPSET = 20
_one_at_a_time = threading.Lock()
"""Exporting sets what belongs to the whole process, such as filters of warnings."""


def onnx(network: Network, stats: RGBStats, *, batch_size: int, threads: int = 0) -> Backend:
    """The network in ONNX Runtime, in float32 on the processor. See ``create`` in ``table``."""
    runtime = need("onnxruntime", extra="onnx", purpose="the backend onnx")
    need("onnxscript", extra="onnx", purpose="the backend onnx")
    shape = shape_of(network, batch_size)
    with converting("ONNX Runtime"):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # each of our threads computes alone
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "graph.onnx"
            _export(network, shape, file)
            session = runtime.InferenceSession(file, sess_options=options, providers=["CPUExecutionProvider"])

    def compute(images: Floats) -> Outputs:
        return Outputs(*session.run(None, {"images": images}))

    with converting("ONNX Runtime"):
        return tried(OneByOne("onnx fp32", compute, shape=shape, stats=stats, threads=threads), shape)


def _export(network: Network, shape: tuple[int, int, int, int], file: Path) -> None:
    module = whole(network, device=torch.device("cpu"))
    with _one_at_a_time, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the insides of the packages
        program = torch.onnx.export(
            module,
            (torch.zeros(1, *shape[1:]),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            verbose=False,
        )
        assert program is not None
        program.save(file, external_data=True)  # one file alone may hold no more than 2 GB
