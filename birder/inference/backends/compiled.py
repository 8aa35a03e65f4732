"""Torch, with operations joined and code written for them (``torch.compile``)."""

from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from birder.inference.backends.base import Backend, Outputs, converting
from birder.inference.backends.eager import DTYPES
from birder.inference.backends.whole import Whole, answers, backend, shape_of, whole
from birder.networks.base import Network
from birder.signature import RGBStats


def compiled(
    network: Network, stats: RGBStats, *, batch_size: int, precision: str, device: torch.device, threads: int = 0
) -> Backend:
    """The network, compiled for one size; on a GPU as a graph that is started as a whole. See ``create`` in ``table``.

    It takes a minute to make.
    """
    dtype = DTYPES[precision]
    run = torch.compile(
        _code_of_its_own(whole(network, device=device, dtype=dtype)),
        dynamic=False,
        fullgraph=True,
        mode="reduce-overhead" if device.type == "cuda" else None,
    )

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return answers(run(images.to(dtype)))  # copied, because the graph writes to the same place again

    shape = shape_of(network, batch_size)
    with converting("torch.compile"):
        return backend(f"compiled {precision}", compute, shape=shape, stats=stats, device=device, threads=threads)


def _code_of_its_own(module: Whole) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function that calls the module; torch counts how often it compiles the same code, and gives up at the ninth."""

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return module(images)

    return FunctionType(run.__code__.replace(), run.__globals__, closure=run.__closure__)
