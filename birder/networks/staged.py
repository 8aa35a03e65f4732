"""What networks of a stem and several stages have in common."""

from collections.abc import Callable

from torch import Tensor, nn

from birder.layers.masking import hide
from birder.networks.base import Network


class StagedNetwork(Network):
    """A stem, and stages that make the map coarser one after the other.

    Attributes:
        stem: Image (B, C, H, W) to the first map; a module, or a method where the file format has another name for it.
        body: The stages ``stage1`` and on.
    """

    stem: Callable[[Tensor], Tensor]
    body: nn.Sequential

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/32, W/32)."""
        return self.body(self.stem(x))

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps ``stage1`` to ``stage4``, at strides 4, 8, 16 and 32."""
        x = self.stem(x)
        maps = {}
        for name, stage in self.body.named_children():
            maps[name] = x = stage(x)
        return maps

    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """See ``MasksTokens``."""
        grid = (x.shape[2] // self.max_stride, x.shape[3] // self.max_stride)
        return self.body(hide(self.stem(x), mask, token, grid))

    def map_block(self, width: int) -> nn.Module:
        """See ``MasksMaps``."""
        raise NotImplementedError
