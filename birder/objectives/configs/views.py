"""Options of the objectives that look at several views of a picture.

What a paper counts in epochs is here a share of the run, 0 to 1, so that it means the same in a short one.
"""

from dataclasses import dataclass
from typing import Literal

from birder.config import within
from birder.errors import ConfigError
from birder.objectives.configs.base import (
    INFINITY,
    Unlabelled,
    Views,
    check_momentum,
    check_range,
    check_temperatures,
    check_widths,
)


@dataclass(frozen=True, kw_only=True)
class TwoViews(Unlabelled):
    """Options of an objective that compares two views of each picture, which should differ a lot."""

    policy = "birder"

    @property
    def views(self) -> Views:
        """Two."""
        return Views(large=2)


@dataclass(frozen=True, kw_only=True)
class MMCRConfig(Unlabelled):
    """Make the views of a picture agree and the pictures fill the space of embeddings (MMCR)."""

    policy = "birder"

    name: Literal["mmcr"] = "mmcr"
    """Name of the objective."""
    num_views: int = 2
    """Views of each picture."""
    projector: tuple[int, ...] = (8192, 8192, 512)
    """Widths of the layers behind the network, which are thrown away in the end."""
    local_weight: float = 0.0
    """Weight of the spread among the views of one picture in the loss."""
    momentum: float = 0.99
    """How slowly the second network follows the first."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 2, INFINITY, "num_views")
        within(self, 0.0, INFINITY, "local_weight")
        within(self, 0.0, 1.0, "momentum")
        check_widths("projector", self.projector)

    @property
    def views(self) -> Views:
        """As many as the options say."""
        return Views(large=self.num_views)


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(TwoViews):
    """Find the other view of a picture among all in the batch (SimCLR)."""

    min_scale = 0.2

    name: Literal["simclr"] = "simclr"
    """Name of the objective."""
    projection: int = 128
    """Width of what is compared."""
    hidden: int | None = None
    """Width of the layer in between; None is that of the embedding."""
    temperature: float = 0.1
    """Similarities are divided by it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 1, INFINITY, "projection", "hidden")
        check_temperatures(self, "temperature")


@dataclass(frozen=True, kw_only=True)
class BYOLConfig(TwoViews):
    """Say what a slowly following network makes of the other view of a picture (BYOL)."""

    name: Literal["byol"] = "byol"
    """Name of the objective."""
    projection: int = 256
    """Width of what is compared."""
    hidden: int = 4096
    """Width within the layers behind the network."""
    momentum: tuple[float, float] = (0.996, 1.0)
    """How slowly the teacher follows, at the beginning and at the end."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 1, INFINITY, "projection", "hidden")
        check_momentum(self.momentum)


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsConfig(TwoViews):
    """Make two views agree in every dimension, and no two dimensions say the same (Barlow Twins)."""

    name: Literal["barlow_twins"] = "barlow_twins"
    """Name of the objective."""
    projector: tuple[int, ...] = (8192, 8192, 8192)
    """Widths of the layers behind the network."""
    off_diagonal: float = 0.0051
    """Weight of the correlations between different dimensions."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, INFINITY, "off_diagonal")
        check_widths("projector", self.projector)


@dataclass(frozen=True, kw_only=True)
class VICRegConfig(TwoViews):
    """Make two views agree while all dimensions vary, each by itself (VICReg)."""

    name: Literal["vicreg"] = "vicreg"
    """Name of the objective."""
    projector: tuple[int, ...] = (8192, 8192, 8192)
    """Widths of the layers behind the network."""
    invariance: float = 25.0
    """Weight of the distance between the views."""
    variance: float = 25.0
    """Weight of dimensions that vary too little."""
    covariance: float = 1.0
    """Weight of dimensions that vary together."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, INFINITY, "invariance", "variance", "covariance")
        check_widths("projector", self.projector)


@dataclass(frozen=True, kw_only=True)
class SelfSorting(Unlabelled):
    """Options of an objective that sorts pictures as its teacher does."""

    policy = "birder"

    prototypes: int = 65536
    """Kinds into which pictures are sorted."""
    hidden: int = 2048
    """Width within the head."""
    bottleneck: int = 256
    """Width in front of the last layer of the head."""
    head_depth: int = 3
    """Layers of the head in front of the last."""
    head_batch_norm: bool = False
    """Whether the head has batch norms; networks without any need none."""
    small_views: int = 8
    """Small crops of each picture, beside two large ones."""
    small_size: int = 96
    """Height and width of a small crop, in pixels."""
    small_scale: tuple[float, float] = (0.1, 0.5)
    """Least and greatest share of the area that a small crop shows."""
    student_temperature: float = 0.1
    """Of the student; its logits are divided by it."""
    teacher_temperature: tuple[float, float] = (0.04, 0.04)
    """Of the teacher, at the beginning and after the warm-up."""
    temperature_warmup: float = 0.1
    """Share of the run in which it goes from one to the other."""
    center_momentum: float = 0.9
    """How slowly the centre of the teacher's logits follows."""
    momentum: tuple[float, float] = (0.996, 1.0)
    """How slowly the teacher follows, at the beginning and at the end."""
    hold_last: float = 0.01
    """Share of the run in which the last layer of the head does not learn."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 1, INFINITY, "prototypes", "hidden", "bottleneck", "head_depth", "small_size")
        within(self, 0, INFINITY, "small_views")
        within(self, 0.0, 1.0, "temperature_warmup", "center_momentum", "hold_last")
        check_range("small_scale", self.small_scale)
        check_range("teacher_temperature", self.teacher_temperature, INFINITY, rising=False)
        check_temperatures(self, "student_temperature")
        check_momentum(self.momentum)

    @property
    def views(self) -> Views:
        """Two large ones and some small ones."""
        return Views(large=2, small=self.small_views, small_size=self.small_size, small_scale=self.small_scale)


@dataclass(frozen=True, kw_only=True)
class DINOConfig(SelfSorting):
    """Sort pictures as a teacher does that sees more of them than a small crop (DINO)."""

    name: Literal["dino"] = "dino"
    """Name of the objective."""


@dataclass(frozen=True, kw_only=True)
class IBOTConfig(SelfSorting):
    """DINO, and sort the hidden patches of a picture as a teacher does that sees them (iBOT)."""

    name: Literal["ibot"] = "ibot"
    """Name of the objective."""
    prototypes: int = 8192
    """Kinds into which pictures are sorted."""
    patch_prototypes: int = 8192
    """Kinds into which patches are sorted; with one head for both, the same number."""
    shared_head: bool = True
    """Whether pictures and patches are sorted by the same last layer."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Of the teacher, at the beginning and after the warm-up."""
    patch_temperature: tuple[float, float] = (0.04, 0.07)
    """The same for patches."""
    patch_warmup_start: float = 0.0
    """Share of the run after which the temperature for patches begins to rise."""
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    """Least and greatest share of the patches that is hidden from the student."""
    mask_probability: float = 0.5
    """Share of the pictures in which patches are hidden."""
    patch_weight: float = 1.0
    """Weight of the loss of the patches, to that of the pictures."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        within(self, 1, INFINITY, "patch_prototypes")
        within(self, 0.0, 1.0, "mask_probability", "patch_warmup_start")
        within(self, 0.0, INFINITY, "patch_weight")
        check_range("mask_ratio", self.mask_ratio)
        check_range("patch_temperature", self.patch_temperature, INFINITY, rising=False)
        if self.shared_head and self.patch_prototypes != self.prototypes:
            raise ConfigError(
                f"patch_prototypes: with shared_head the same as prototypes, {self.prototypes}, not "
                f"{self.patch_prototypes}"
            )


@dataclass(frozen=True, kw_only=True)
class RotationConfig(Unlabelled):
    """Say by how many quarter turns a picture was turned (RotNet)."""

    policy = "none"

    name: Literal["rotation"] = "rotation"
    """Name of the objective."""
