"""What every network can do, and the table of networks.

Shapes: B images, C channels, H height, W width, D size of the embedding.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from birder.config import with_options
from birder.errors import ConfigError
from birder.layers.checkpointing import checkpointed, unchecked
from birder.registry import Registry


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Options that every architecture has."""

    head_bias: bool = True
    """Whether the classifier adds a bias."""
    mlp_head: bool = False
    """Whether a hidden layer (3 x the embedding, GELU, layer norm) stands before the classifier."""


@dataclass(frozen=True, kw_only=True)
class Older:
    """What the files of older versions mean, where the names of the weights do not tell."""

    before: tuple[int, ...]
    """Versions below this one, such as (0, 4)."""
    options: dict[str, Any]
    """Options of the network that give the numbers which the writer of the file got."""
    reason: str
    """For the log, such as ``layer norms with eps 1e-5, as PVT v2 had before 0.4``."""


class Network(nn.Module):
    """Image -> features -> embedding -> logits.

    A subclass builds its layers in ``__init__``, sets the attributes from ``embedding_size`` on, calls
    ``reset_classifier(num_classes)``, and answers ``forward_features``, ``pool``, ``detection_features``, ``blocks``.
    Its layers stand in the order in which a picture passes them; its stages are the children of ``body``, or end where
    ``stage_ends`` says.

    Attributes:
        name: Its registered name.
        config: The options it was built with.
        input_channels: Channels of the pictures.
        num_classes: Number of classes; 0 means none: the logits are then the embedding.
        size: (height, width) it was built for.
        embedding_size: D.
        frozen: Names of the weights that ``freeze`` has stopped.
        stages: Width of each feature map of ``detection_features``, by name.
        max_stride: Input pixels per position of the last feature map.
        stem_width: Channels after the stem.
    """

    default_size = (224, 224)
    renamed: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Patterns and replacements that turn names of weights in older files into today's."""
    older: ClassVar[tuple[Older, ...]] = ()
    """What older files mean, oldest first; the first row whose ``before`` is above the file's version holds."""

    embedding_size: int
    stages: dict[str, int]
    stem_width: int

    def __init__(
        self,
        config: Any,
        *,
        num_classes: int,
        input_channels: int = 3,
        size: tuple[int, int] | None = None,
        max_stride: int = 32,
    ) -> None:
        """Keep the arguments; a subclass builds the layers.

        Args:
            config: Options of the architecture.
            num_classes: Number of classes; 0 for none.
            input_channels: Channels of the pictures.
            size: (height, width) of the pictures; None is the default.
            max_stride: Input pixels per position of the last feature map, given by the subclass.

        Raises:
            ConfigError: A negative number of classes, or a size that is too small or no size at all.
        """
        super().__init__()
        self.name = type(self).__name__
        self.config = config
        self.num_classes = num_classes
        self.input_channels = input_channels
        self.max_stride = max_stride
        self.size = self.checked_size(size or self.default_size)
        self.dynamic_size = False
        self.frozen: tuple[str, ...] = ()
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

        One answer to three questions: layer-wise learning rates, activation checkpointing, sharding.
        """
        raise NotImplementedError

    def stage_ends(self) -> list[nn.Module]:
        """The last module of each stage, in the order of ``stages``."""
        return list(self.get_submodule("body").children())

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

    def freeze(self, stages: int | None = None) -> None:
        """Stop the learning of the first part of the network; what was frozen before and lies behind it learns again.

        Frozen parts stay in evaluation mode: no dropped paths, and batch norms keep their statistics.

        Args:
            stages: The stem and so many stages are frozen; None is all but the classifier (linear probing).

        Raises:
            ConfigError: There are fewer stages.
        """
        names = [name for name, _ in self.named_parameters()]
        if stages is None:
            frozen = [name for name in names if not name.startswith("classifier.")]
        else:
            frozen = names[: self._weights_up_to(stages)]
        for name in self.frozen:
            self.get_parameter(name).requires_grad_(True)
        for name in frozen:
            self.get_parameter(name).requires_grad_(False)
        self.frozen = tuple(frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        frozen = set(self.frozen)
        for path, module in self.named_modules() if frozen else ():
            names = [f"{path}.{name}" for name, _ in module.named_parameters()]
            if path and names and frozen.issuperset(names):
                module.eval()
        return self

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Save memory in training: keep only the input of each block, and compute the rest again going backwards.

        Results and gradients stay the same, and so do all names.

        Paper: Chen et al. 2016, https://arxiv.org/abs/1604.06174
        """
        for block in self.blocks():
            (checkpointed if on else unchecked)(block)

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

    def _weights_up_to(self, stages: int) -> int:
        """How many weights come before the first block, or up to the end of so many stages."""
        ends = self.stage_ends()
        if not 0 <= stages <= len(ends):
            raise ConfigError(f"freeze: {self.name} has {len(ends)} stages: give 0 to {len(ends)}, not {stages}")
        places = {weight: place for place, weight in enumerate(self.parameters())}
        if stages == 0:
            return min(places[weight] for weight in self.blocks()[0].parameters())
        return 1 + max(places[weight] for weight in ends[stages - 1].parameters())


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


@runtime_checkable
class MasksMaps(MasksTokens, Protocol):
    """A network that can do that, and whose blocks read and give maps (FCMAE)."""

    def map_block(self, width: int) -> nn.Module:
        """A new block of the network's own kind for a decoder, (B, width, H, W) -> (B, width, H, W).

        It drops no paths.

        Args:
            width: Channels; a multiple of 64 suits every network.
        """
        ...


@runtime_checkable
class DropsTokens(Protocol):
    """A network that can leave out parts of a picture, and save their computation (MAE, I-JEPA)."""

    num_special_tokens: int
    """S, tokens in front of those of the patches."""

    def encode_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        """Image (B, C, H, W) and (B, K) positions of patches to the tokens (B, S + K, D), after the final norm.

        The special tokens come first, then the patches in the order of ``keep``.
        """
        ...

    def token_block(self, width: int, num_heads: int = 16) -> nn.Module:
        """A new block of the network's own kind for a decoder, (B, N, width) -> (B, N, width).

        It is plain: an MLP four times as wide, no dropout, no dropped paths, no learned factors.

        Args:
            width: Of a token, a multiple of ``num_heads``.
            num_heads: Heads of the attention.
        """
        ...


@runtime_checkable
class ShowsLayers(Protocol):
    """A network whose blocks all have the same shape, and can be looked at one by one (data2vec)."""

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) to the tokens (B, S + L, D) behind each block; the last have passed the final norm."""
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
