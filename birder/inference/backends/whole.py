"""A network as one function of the pictures, apart from the network that it was made of, computed by torch."""

import copy

import torch
from torch import Tensor, nn

from birder.inference.backends.base import Backend, Outputs, tried
from birder.inference.backends.one_by_one import OneByOne
from birder.inference.backends.together import Compute, Together
from birder.networks.base import Network
from birder.signature import RGBStats


class Whole(nn.Module):
    """Pictures (B, C, H, W) to their embeddings (B, D) and, if there are classes, logits (B, K)."""

    def __init__(self, network: Network) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(embeddings,) or (embeddings, logits)."""
        embeddings = self.network.embedding(images)
        return (embeddings, self.network.classify(embeddings)) if self.network.num_classes else (embeddings,)


def shape_of(network: Network, batch_size: int) -> tuple[int, int, int, int]:
    """(B, C, H, W) of the batches of a network."""
    return (batch_size, network.input_channels, *network.size)


def whole(
    network: Network,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.preserve_format,
) -> Whole:
    """The network in evaluation mode, on a device and in a type; it stays what it is itself.

    Only weights that have to change are copied; the others are those of the network, in the same memory.
    """

    def suited(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        keep = torch.preserve_format if tensor.ndim != 4 else layout
        return tensor.detach().to(device, kind, memory_format=keep)

    memo: dict[int, object] = {id(buffer): suited(buffer) for buffer in network.buffers()}
    for weight in network.parameters():
        memo[id(weight)] = nn.Parameter(suited(weight), requires_grad=False)
    return Whole(copy.deepcopy(network, memo).eval())


def answers(tensors: tuple[Tensor, ...]) -> Outputs:
    """What ``Whole`` gave, as arrays of their own in ordinary memory."""
    return Outputs(*(tensor.float().cpu().numpy().copy() for tensor in tensors))


def backend(
    name: str,
    compute: Compute,
    *,
    shape: tuple[int, int, int, int],
    stats: RGBStats,
    device: torch.device,
    threads: int = 0,
) -> Backend:
    """What computes with torch: one by one on a processor, together on a GPU. A first picture is computed.

    Args:
        name: See ``Backend``.
        compute: On a processor it is given one picture, and several threads call it; on a GPU whole batches, one after
            the other.
        shape: (batch size, C, H, W).
        stats: Colour statistics by which pictures are normalised.
        device: Where to compute.
        threads: Of a processor; 0 is all that this process may use.
    """
    made: Backend
    if device.type == "cpu":
        before = torch.get_num_threads()
        made = OneByOne(
            name,
            lambda images: compute(torch.from_numpy(images)),
            shape=shape,
            stats=stats,
            threads=threads,
            begin=_without_help,
        )
        torch.set_num_threads(before)  # for threads that others start: torch also remembers the number for these
    else:
        made = Together(name, compute, shape=shape, stats=stats, device=device)
    return tried(made, shape)


def _without_help() -> None:
    """This thread computes without help."""
    torch.set_num_threads(1)
    # A thread takes the number of the process when torch is first asked in it; so that is now, while it is one.
    torch.get_num_threads()
