"""NVIDIA GPUs: a batch as a graph of kernels, started as a whole."""

import torch
from torch import Tensor

from birder.inference.backends.base import Backend, Outputs, converting
from birder.inference.backends.eager import DTYPES
from birder.inference.backends.whole import answers, backend, shape_of, whole
from birder.networks.base import Network
from birder.signature import RGBStats

WARM_UP = 3
"""Batches before the graph is recorded, in which libraries choose their kernels and take their memory."""


def cuda(network: Network, stats: RGBStats, *, batch_size: int, precision: str, device: torch.device) -> Backend:
    """The kernels of the network, recorded once: they start without Python. See ``create`` in ``table``."""
    dtype = DTYPES[precision]
    module = whole(network, device=device, dtype=dtype, layout=torch.channels_last)
    shape = shape_of(network, batch_size)
    static = torch.zeros(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    graph = torch.cuda.CUDAGraph()
    with converting("a CUDA graph"), torch.cuda.device(device), torch.no_grad():
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                module(static)
        torch.cuda.current_stream(device).wait_stream(aside)
        with torch.cuda.graph(graph):
            results = module(static)

    def compute(images: Tensor) -> Outputs:
        with torch.cuda.device(device), torch.no_grad():
            static.copy_(images)
            graph.replay()
            return answers(results)

    return backend(f"cuda {precision}", compute, shape=shape, stats=stats, device=device)
