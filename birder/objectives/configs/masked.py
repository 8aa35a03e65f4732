"""Options of the objectives that hide a part of each picture.

What a paper counts in epochs is here a share of the run, 0 to 1, so that it means the same in a short one.
"""

from dataclasses import dataclass
from typing import Literal

from birder.config import within
from birder.errors import ConfigError
from birder.objectives.configs.base import INFINITY, Unlabelled, check_momentum, check_range, check_ratio


@dataclass(frozen=True, kw_only=True)
class Masked(Unlabelled):
    """Options of an objective that hides a part of each picture; crops are variation enough."""

    policy = "none"


@dataclass(frozen=True, kw_only=True)
class MAEConfig(Masked):
    """Draw the hidden patches of a picture from a few visible ones (MAE)."""

    name: Literal["mae"] = "mae"
    """Name of the objective."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden, and costs the network nothing."""
    decoder_depth: int = 8
    """Blocks of the decoder, which is thrown away in the end."""
    decoder_width: int = 512
    """Width of a token in the decoder, a multiple of 16 heads."""
    normalized_targets: bool = True
    """Draw each patch with its own mean and deviation taken out; otherwise the plain pixels."""
    learned_positions: bool = False
    """Learn the decoder's table of positions; otherwise sines and cosines."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ratio(self.mask_ratio)
        within(self, 1, INFINITY, "decoder_depth", "decoder_width")
        if self.decoder_width % 16:
            raise ConfigError(f"decoder_width: must be a multiple of its 16 heads, not {self.decoder_width}")


@dataclass(frozen=True, kw_only=True)
class FCMAEConfig(Masked):
    """Draw the hidden parts of a picture, with a network whose map gets coarser on the way (FCMAE)."""

    name: Literal["fcmae"] = "fcmae"
    """Name of the objective."""
    mask_ratio: float = 0.6
    """Share of the picture that is hidden, in squares of the coarsest stride."""
    decoder_width: int = 512
    """Width of the decoder."""
    normalized_targets: bool = True
    """Draw each square with its own mean and deviation taken out; otherwise the plain pixels."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ratio(self.mask_ratio)
        within(self, 1, INFINITY, "decoder_width")


@dataclass(frozen=True, kw_only=True)
class SimMIMConfig(Masked):
    """Draw the hidden parts of a picture with a single layer behind the network (SimMIM)."""

    name: Literal["simmim"] = "simmim"
    """Name of the objective."""
    mask_ratio: float = 0.6
    """Share of the picture that is hidden."""
    cell: int = 32
    """Side of the hidden squares, in pixels; made a multiple of the network's coarsest stride."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ratio(self.mask_ratio)
        within(self, 1, INFINITY, "cell")


@dataclass(frozen=True, kw_only=True)
class Data2VecConfig(Masked):
    """Say what a teacher, which sees all of a picture, makes of the hidden patches (data2vec)."""

    name: Literal["data2vec"] = "data2vec"
    """Name of the objective."""
    max_masked: float = 0.6
    """Most that is hidden, as a share of the patches; how much is drawn anew in each step."""
    min_masked: int = 16
    """Fewest patches that are hidden, and of a block."""
    top_layers: int = 6
    """Last blocks of the teacher whose mean is the target."""
    normalized_targets: bool = True
    """Whether that mean is layer-normed."""
    beta: float = 2.0
    """Where the smooth L1 loss turns from a square into a line; 0 is the square throughout."""
    momentum: tuple[float, float] = (0.999, 0.9998)
    """How slowly the teacher follows, at the beginning and at the end."""
    loss_on: Literal["hidden", "visible"] = "hidden"
    """Where the loss is taken; visible is a mistake that published weights were trained with, before 2026."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ratio(self.max_masked, "max_masked")
        within(self, 1, INFINITY, "min_masked", "top_layers")
        within(self, 0.0, INFINITY, "beta")
        check_momentum(self.momentum)


@dataclass(frozen=True, kw_only=True)
class Data2Vec2Config(Masked):
    """The same with several masks for each look of the teacher, and a small decoder (data2vec 2.0)."""

    name: Literal["data2vec2"] = "data2vec2"
    """Name of the objective."""
    mask_ratio: float = 0.8
    """Share of the patches that is hidden."""
    block: int = 3
    """Side of the visible squares, in patches."""
    adjust: float = 0.07
    """Added to the share before squares are drawn, as they overlap."""
    num_masks: int = 8
    """Masks of each picture for one target."""
    top_layers: int = 10
    """Last blocks of the teacher whose mean is the target."""
    decoder_depth: int = 6
    """Convolutions of the decoder."""
    decoder_width: int = 768
    """Width of the decoder, a multiple of 16 groups."""
    class_weight: float = 0.01
    """Weight of the loss of the class token, which learns the mean of the target's patches."""
    momentum: tuple[float, float] = (0.9998, 0.99999)
    """How slowly the teacher follows, at the beginning and at the end."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ratio(self.mask_ratio)
        within(self, 1, INFINITY, "block", "num_masks", "top_layers", "decoder_depth", "decoder_width")
        if self.decoder_width % 16:
            raise ConfigError(f"decoder_width: must be a multiple of the 16 groups, not {self.decoder_width}")
        within(self, 0.0, INFINITY, "class_weight")
        within(self, 0.0, 1.0, "adjust")
        check_momentum(self.momentum)


@dataclass(frozen=True, kw_only=True)
class IJEPAConfig(Masked):
    """From one part of a picture, say what a teacher makes of several others (I-JEPA)."""

    name: Literal["i_jepa"] = "i_jepa"
    """Name of the objective."""
    num_targets: int = 4
    """Blocks to be told."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Least and greatest share of the patches in one of them."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Least and greatest height / width of one."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Least and greatest share of the patches in what is seen, before the targets are taken away."""
    min_context: int = 10
    """Fewest patches that are seen."""
    predictor_depth: int = 12
    """Blocks of the predictor, which is thrown away in the end."""
    predictor_width: int = 384
    """Width of a token in the predictor, a multiple of its heads."""
    predictor_heads: int = 12
    """Heads of the attention in the predictor."""
    momentum: tuple[float, float] = (0.996, 1.0)
    """How slowly the teacher follows, at the beginning and at the end."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 1, INFINITY, "num_targets", "min_context")
        within(self, 1, INFINITY, "predictor_depth", "predictor_width", "predictor_heads")
        if self.predictor_width % self.predictor_heads or self.predictor_width % 4:
            raise ConfigError(
                f"predictor_width: must be a multiple of the {self.predictor_heads} heads and of 4, for the table of "
                f"positions, not {self.predictor_width}"
            )
        check_range("target_scale", self.target_scale)
        check_range("context_scale", self.context_scale)
        check_range("target_aspect", self.target_aspect, INFINITY)
        check_momentum(self.momentum)
