"""Several processes that train together, started by torchrun; in a single process all of this does nothing."""

import gc
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from birder.errors import BirderError, ConfigError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def primary() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def first_of_all() -> bool:
    """Whether this is the first process, also before the processes have met and after they have parted."""
    return int(os.environ.get("RANK", 0)) == 0


def local_rank() -> int:
    """Number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def as_primary(tensors: Iterable[torch.Tensor]) -> None:
    """Give tensors of all processes the numbers of process 0, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun has started, for as long as the body runs; a single process joins nobody.

    Args:
        device: Where they compute; GPUs speak through NCCL, all others through gloo.

    Raises:
        ConfigError: Some of what torchrun sets is missing.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is set, but not {', '.join(missing)}: start several processes with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # Said of every depthwise convolution, whose gradients are copied once more; nothing is to be done about it.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    try:
        yield
    finally:
        gc.collect()  # modules in parts refer to each other in circles, and would keep the group beyond its end
        dist.destroy_process_group()


def added(values: list[float], device: torch.device) -> list[float]:
    """The sum over all processes of each of some numbers."""
    if world_size() == 1:
        return values
    numbers = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(numbers)
    return numbers.tolist()


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, (N, …) -> (sum of all N, …), in the order of the processes; N may differ.

    Its gradients are right for a loss that every process computes from all the rows, when the processes then exchange
    the mean of the gradients of their weights: each gets those of its own rows, times the number of processes.
    """
    if world_size() == 1:
        return tensor
    own = [float(len(tensor)) if number == rank() else 0.0 for number in range(world_size())]
    counts = [int(count) for count in added(own, tensor.device)]
    rows = _Gathered.apply(tensor, max(counts))
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])


class _Gathered(torch.autograd.Function):
    """(N, …) and M, at least N -> (processes, M, …), filled up with zeros."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, longest: int) -> torch.Tensor:
        ctx.count = len(tensor)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0][rank(), : ctx.count] * world_size(), None


def collected(value: Any) -> list[Any]:
    """What each process has, in the order of their numbers; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def said_by_primary(question: Callable[[], T]) -> T:
    """What process 0 answers, in all of them; what it raises is raised in all of them, too."""
    said: list[Any] = [None, None]
    if primary():
        try:
            said[0] = question()
        except BirderError as error:
            said[1] = error
    if world_size() > 1:
        dist.broadcast_object_list(said)
    if said[1] is not None:
        raise said.pop()  # so that nothing here holds what holds all frames, and with them what speaks to the others
    return said[0]
