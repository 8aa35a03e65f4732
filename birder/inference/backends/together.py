"""How the pictures of a batch are computed on a GPU: together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import torch
from torch import Tensor

from birder.data.fitting import Pixels
from birder.data.transforms import classification_transform
from birder.errors import ConfigError
from birder.inference.backends.base import Backend, Outputs, Pending, check
from birder.inference.classification import five_crops
from birder.signature import RGBStats

Compute: TypeAlias = Callable[[Tensor], Outputs]
"""Normalised pictures (B, C, H, W) to their answers, which stay as they are after the next call; on a GPU, B never
changes."""


class Together(Backend):
    """A backend of a GPU: batches are filled up, and computed at once.

    All batches have one size, so that the same kernels compute each of them.

    Attributes:
        name: See ``Backend``.
        device: See ``Backend``.
        batch_size: See ``Backend``.
    """

    def __init__(
        self,
        name: str,
        compute: Compute,
        *,
        shape: tuple[int, int, int, int],
        stats: RGBStats,
        device: torch.device,
    ) -> None:
        """Nothing is computed yet.

        Args:
            name: See ``Backend``.
            compute: Answers to a whole batch; never called twice at once.
            shape: (batch size, C, H, W).
            stats: Colour statistics by which pictures are normalised.
            device: Where to compute.
        """
        self.name, self.device, self.batch_size = name, str(device), shape[0]
        self._compute, self._shape, self._place = compute, shape, device
        self._transform = classification_transform(shape[2:], stats)
        # Always the same thread, as graphs that torch records belong to the one that did.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        """See ``Backend``."""
        check(pixels, self._shape)
        return Pending([self._thread.submit(self._answers, pixels, five)])

    def _answers(self, pixels: Pixels, five: bool) -> list[Outputs]:
        try:
            # Bytes are moved, a quarter of what they will be, and normalised there.
            moved = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._place, non_blocking=True)
            images = self._transform.normalize(moved)
            return [self._filled_up(view) for view in (five_crops(images) if five else [images])]
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"a batch of {len(pixels)} does not fit into the memory of {self.device}: lower batch_size"
            ) from error

    def _filled_up(self, images: Tensor) -> Outputs:
        embeddings, logits = self._compute(padded(images, self.batch_size))
        return Outputs(embeddings[: len(images)], None if logits is None else logits[: len(images)])


def padded(images: Tensor, batch_size: int) -> Tensor:
    """The pictures (B, C, H, W) and, behind them, the last one again until there are ``batch_size``.

    A picture that is there already brings no numbers that an empty one could: none that are not finite, none that are
    too small to be computed fast.
    """
    missing = batch_size - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
