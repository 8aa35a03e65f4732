"""Torch, one operation after the other: what is always there."""

import torch
from torch import Tensor

from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.batching import OneByOne, Together, shape_of
from birder.inference.backends.whole import answers, whole
from birder.networks.base import Network

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def eager(network: Network, *, batch_size: int, precision: str, device: torch.device, threads: int = 0) -> Backend:
    """The network itself; in ``bf16`` its weights are converted. See ``create`` in ``table``."""
    dtype = DTYPES[precision]
    module = whole(network, device=device, dtype=dtype)

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return answers(module(images.to(dtype)))

    name, shape = f"torch {precision}", shape_of(network, batch_size)
    if device.type == "cpu":
        return OneByOne(name, compute, shape, threads)
    return Together(name, compute, shape, device)
