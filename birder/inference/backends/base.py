"""What every way to compute a network's answers offers.

Shapes: B pictures, C channels, H height, W width, D size of the embedding, K classes.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from birder.errors import ConfigError
from birder.inference.rows import Floats


class Outputs(NamedTuple):
    """Answers to a batch, as numbers in ordinary memory."""

    embeddings: Floats
    """(B, D)."""
    logits: Floats | None = None
    """(B, K); None of a network without classifier."""


Compute: TypeAlias = Callable[[Tensor], Outputs]
"""Pictures (B, C, H, W) to their answers, where B never changes; the arrays stay as they are after the next call."""


class Backend(Protocol):
    """A network that was made ready for batches of one size."""

    name: str
    """What it is and computes in, such as ``openvino bf16``."""
    device: torch.device
    """Where it takes its pictures from."""
    batch_size: int
    """The largest batch it takes; on a GPU, a smaller one costs as much."""

    def __call__(self, images: Tensor) -> Outputs:
        """Answers to normalised pictures, float32 (B, C, H, W) on ``device``, B from 1 to ``batch_size``.

        The answer to a picture depends neither on what else is in the batch nor on its place in it. Several threads may
        call it at once.

        Raises:
            ConfigError: Pictures in another form.
        """
        ...


def padded(images: Tensor, batch_size: int) -> Tensor:
    """The pictures (B, C, H, W) and, behind them, the last one again until there are ``batch_size``.

    A picture that is there already brings no numbers that an empty one could: none that are not finite, none that are
    too small to be computed fast.
    """
    missing = batch_size - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images


def check(images: Tensor, shape: tuple[int, ...]) -> None:
    """Pictures are float32 of (C, H, W) as in ``shape``, (batch size, C, H, W), and not more than the batch takes.

    Raises:
        ConfigError: They are not.
    """
    fits = images.ndim == 4 and images.shape[1:] == shape[1:] and 1 <= len(images) <= shape[0]
    if not fits or images.dtype != torch.float32:
        raise ConfigError(
            f"this backend takes float32 pictures of {shape[1:]}, 1 to {shape[0]} at once, not {tuple(images.shape)} "
            f"{str(images.dtype).removeprefix('torch.')}"
        )
