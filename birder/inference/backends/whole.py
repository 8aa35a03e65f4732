"""A network as one function of the pictures, apart from the network that it was made of."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from birder.errors import BirderError, ConfigError
from birder.inference.backends.base import Outputs
from birder.networks.base import Network


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


@contextmanager
def converting(backend: str) -> Iterator[None]:
    """Say in one sentence why a backend cannot take the network.

    Raises:
        ConfigError: Anything went wrong.
    """
    try:
        yield
    except BirderError:
        raise
    except Exception as error:  # each package has its own kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[0] if lines else type(error).__name__
        raise ConfigError(f"{backend} cannot take this network: {type(error).__name__}: {cause[:300]}") from error
