"""Torch, with operations joined and code written for them (``torch.compile``)."""

import torch
from torch import Tensor

from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.batching import OneByOne, Together, shape_of
from birder.inference.backends.eager import DTYPES
from birder.inference.backends.whole import answers, converting, whole
from birder.networks.base import Network


def compiled(network: Network, *, batch_size: int, precision: str, device: torch.device, threads: int = 0) -> Backend:
    """The network, compiled for one size; on a GPU as a graph that is started as a whole. See ``create`` in ``table``.

    It takes a minute to make.
    """
    dtype = DTYPES[precision]
    # A function of its own for each backend, because torch counts how often it compiles one, and gives up.
    module = whole(network, device=device, dtype=dtype)
    run = torch.compile(
        module, dynamic=False, fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else None
    )

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return answers(run(images.to(dtype)))  # copied, because the graph writes to the same place again

    name, shape = f"compiled {precision}", shape_of(network, batch_size)
    with converting("torch.compile"):
        if device.type == "cpu":
            return OneByOne(name, compute, shape, threads)
        return Together(name, compute, shape, device)
