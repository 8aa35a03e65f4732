"""Torch, one operation after the other: what is always there."""

import torch
from torch import Tensor

from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.whole import answers, backend, shape_of, whole
from birder.networks.base import Network
from birder.signature import RGBStats

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def eager(
    network: Network, stats: RGBStats, *, batch_size: int, precision: str, device: torch.device, threads: int = 0
) -> Backend:
    """The network itself; in ``bf16`` its weights are converted. See ``create`` in ``table``."""
    dtype = DTYPES[precision]
    module = whole(network, device=device, dtype=dtype)

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return answers(module(images.to(dtype)))

    shape = shape_of(network, batch_size)
    return backend(f"torch {precision}", compute, shape=shape, stats=stats, device=device, threads=threads)
