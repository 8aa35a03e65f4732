"""What every network can do, and the table of networks.

Shapes: B images, C channels, H height, W width, D size of the embedding.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from birder.config import with_options
from birder.errors import ConfigError
from birder.registry import Registry


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Options that every architecture has."""

    head_bias: bool = True
    """Whether the classifier adds a bias."""
    mlp_head: bool = False
    """Whether a hidden layer (3 x the embedding, GELU, layer norm) stands before the classifier."""


class Network(nn.Module):
    """Image -> features -> embedding -> logits.

    A subclass builds its layers in ``__init__``, sets the attributes from ``embedding_size`` on, calls
    ``reset_classifier(num_classes)``, and answers ``forward_features``, ``pool``, ``detection_features``, ``blocks``.

    Attributes:
        name: Its registered name.
        config: The options it was built with.
        input_channels: Channels of the pictures.
        num_classes: Number of classes; 0 means none: the logits are then the embedding.
        size: (height, width) it was built for.
        embedding_size: D.
        stages: Width of each feature map of ``detection_features``, by name.
        max_stride: Input pixels per position of the last feature map.
        stem_width: Channels after the stem.
    """

    default_size = (224, 224)
    renamed: tuple[tuple[str, str], ...] = ()
    """Patterns and replacements that turn names of weights in older files into today's."""

    embedding_size: int
    stages: dict[str, int]
    max_stride: int
    stem_width: int

    def __init__(
        self, config: Any, *, num_classes: int, input_channels: int = 3, size: tuple[int, int] | None = None
    ) -> None:
        """Keep the arguments; a subclass builds the layers.

        Raises:
            ConfigError: A negative number of classes, or a size that is too small or no size at all.
        """
        super().__init__()
        self.name = type(self).__name__
        self.config = config
        self.num_classes = num_classes
        self.input_channels = input_channels
        self.size = self.checked_size(size or self.default_size)
        self.dynamic_size = False
        if num_classes < 0 or input_channels < 1:
            raise ConfigError(
                f"num_classes must be 0 or more and input_channels 1 or more: {num_classes}, {input_channels}"
            )

    def forward_features(self, x: Tensor) -> Tensor:
        """Image to the last feature map: (B, C, H, W) -> (B, C', H', W'), or tokens (B, N, D)."""
        raise NotImplementedError

    def pool(self, features: Tensor) -> Tensor:
        """What ``forward_features`` gave, to the embedding (B, D)."""
        raise NotImplementedError

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        """Image (B, C, H, W) to feature maps by stage, finest first, each (B, ``stages[name]``, H', W')."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks from input to output.

        One answer to four questions: layer-wise learning rates, freezing, activation checkpointing, sharding.
        """
        raise NotImplementedError

    def embedding(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        return self.pool(self.forward_features(x))

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, D) -> (B, classes), logits."""
        return self.classifier(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes), logits."""
        return self.classify(self.embedding(x))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes; 0 removes it."""
        self.num_classes = num_classes
        like = next(self.parameters())
        self.classifier = make_classifier(self.embedding_size, num_classes, self.config)
        self.classifier.to(like.device, like.dtype).train(self.training)

    def adjust_size(self, size: tuple[int, int]) -> None:
        """Go on with pictures of another (height, width); weights that depend on it are resampled.

        Raises:
            ConfigError: A size that is not two whole numbers, or too small for the network.
        """
        self.size = self.checked_size(size)

    def checked_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size as a tuple of two whole numbers that the network can take.

        Raises:
            ConfigError: It is something else.
        """
        sides = tuple(size) if isinstance(size, tuple | list) else ()
        least = self.max_stride
        if len(sides) != 2 or not all(isinstance(side, int) and side >= least for side in sides):
            raise ConfigError(f"size must be (height, width), {least} pixels or more each, not {size!r}")
        return (sides[0], sides[1])

    def set_dynamic_size(self, dynamic: bool = True) -> None:
        """Accept pictures of any size in each call, resampling on the way what depends on it."""
        self.dynamic_size = dynamic

    def adjust_input_channels(self, channels: int) -> None:
        """Go on with another number of input channels, keeping what the first layer has learned.

        To one channel the weights are summed; otherwise they are repeated, and scaled to keep the response.

        Raises:
            ConfigError: Less than one channel.
        """
        if channels < 1:
            raise ConfigError(f"a network needs at least one input channel, not {channels}")
        first = next(module for module in self.modules() if isinstance(module, nn.Conv2d))
        weight = first.weight.detach()
        before = weight.shape[1]
        if channels == 1:
            weight = weight.sum(dim=1, keepdim=True)
        elif channels != before:
            repeats = -(-channels // before)
            weight = weight.repeat(1, repeats, 1, 1)[:, :channels] * (before / channels)
        first.weight = nn.Parameter(weight.clone(), requires_grad=first.weight.requires_grad)
        first.in_channels = self.input_channels = channels


@runtime_checkable
class MasksTokens(Protocol):
    """A network that can see a picture with parts of it replaced by a token (SimMIM, FCMAE, data2vec)."""

    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """Image (B, C, H, W) with masked places to the last feature map (B, C', H', W').

        Args:
            x: Images.
            mask: (B, L), 1 where hidden, row by row over the positions of the last feature map.
            token: (1, 1, 1, stem_width), put at the hidden places of the stem's output; None for zeros.
        """
        ...


networks: Registry[Network] = Registry("network")


def create_network(
    name: str,
    num_classes: int,
    *,
    input_channels: int = 3,
    size: tuple[int, int] | None = None,
    **config: Any,
) -> Network:
    """Build a registered network with new random weights.

    Args:
        name: Registered name, such as ``convnext_v2_tiny``; upper or lower case.
        num_classes: Number of classes; 0 for none.
        input_channels: Channels of the pictures.
        size: (height, width) of the pictures; None is the network's default.
        config: Options of the architecture that replace the registered ones.

    Raises:
        UnknownName: No such network; near misses are suggested.
        ConfigError: An option that the architecture does not have, or of a wrong type.
    """
    name = name.lower()
    cls, registered = networks[name]
    network = cls(
        with_options(registered, config, where=name),
        num_classes=num_classes,
        input_channels=input_channels,
        size=size,
    )
    network.name = name
    return network


def list_networks(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern such as ``convnext_v2_*``."""
    return networks.names(pattern)


def make_classifier(embedding_size: int, num_classes: int, config: NetworkConfig) -> nn.Module:
    """The layer or layers from embedding to logits; the identity for no classes."""
    if num_classes == 0:
        return nn.Identity()
    if not config.mlp_head:
        return nn.Linear(embedding_size, num_classes, bias=config.head_bias)
    hidden = 3 * embedding_size
    return nn.Sequential(
        nn.Linear(embedding_size, hidden),
        nn.GELU(),
        nn.LayerNorm(hidden, eps=1e-6),
        nn.Linear(hidden, num_classes, bias=config.head_bias),
    )
