"""Options of the objectives that learn from labels."""

from dataclasses import MISSING, dataclass, fields
from typing import Literal

from birder.config import within
from birder.errors import ConfigError
from birder.objectives.configs.base import ObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How labels are learned, in every objective that has some.

    Smoothing and mixing go with everything. Rare species are given weight by ``class_weights``, or else by
    ``logit_adjustment``, which is for cross-entropy: with both they would be made up for twice.
    """

    smoothing: float = 0.1
    """Share of the target, 0 to 1, spread evenly over all classes (label smoothing)."""
    mixup: float = 0.0
    """Blend two pictures and their labels; the blend is drawn from Beta(mixup, mixup). 0 is off."""
    cutmix: float = 0.0
    """Paste a part of one picture into another; its area is drawn from Beta(cutmix, cutmix). 0 is off."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed, when mixup or cutmix is on."""
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    """One choice among all classes, or for each class by itself whether it is there (binary cross-entropy)."""
    bce_threshold: float | None = None
    """With bce, a share of a mixed label above it counts as the whole label, others as none; left out, as the share."""
    bce_sum: bool = False
    """With bce, sum over the classes; otherwise the loss of a picture is the mean over them."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """Weight of a picture: inverse to how many its species has, or to their effective number, which levels off."""
    effective_beta: float = 0.999
    """With effective weights, the number levels off at 1 / (1 - effective_beta) pictures."""
    logit_adjustment: float = 0.0
    """Demand more of rare species in training: times the log of the share of each is added to its logit. 1 is full."""

    def __post_init__(self) -> None:
        """Check the ranges, and what goes with what."""
        within(self, 0.0, 1.0, "smoothing", "mix_probability")
        within(self, 0.0, float("inf"), "mixup", "cutmix", "logit_adjustment")
        for name in ("bce_threshold", "effective_beta"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                raise ConfigError(f"{name}: must be at least 0 and below 1, not {value}")
        _only_with(self, "loss", "bce", "bce_threshold", "bce_sum")
        _only_with(self, "loss", "cross_entropy", "logit_adjustment")
        _only_with(self, "class_weights", "effective", "effective_beta")
        _only_with(self, "class_weights", "none", "logit_adjustment")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(LabelOptions, ObjectiveConfig):
    """Learn the species from labelled pictures."""

    name: Literal["classification"] = "classification"
    """Name of the objective."""


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(LabelOptions, ObjectiveConfig):
    """Learn the species from labelled pictures, and what a trained network thinks of them."""

    name: Literal["distillation"] = "distillation"
    """Name of the objective."""
    teacher: str
    """The trained model: a file or a published name."""
    kind: Literal["soft", "hard", "deit", "embedding"] = "soft"
    """What is learned of the teacher: its probabilities, its first choice, that with a second head, its embedding."""
    temperature: float = 3.0
    """With soft, logits are divided by it, so that the less probable classes count more."""
    weight: float = 0.5
    """Share of the teacher in the loss, 0 to 1; the rest is that of the labels."""

    def __post_init__(self) -> None:
        """Check the ranges, and what goes with what."""
        super().__post_init__()
        within(self, 0.0, 1.0, "weight")
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature: must be above 0, not {self.temperature}")
        _only_with(self, "kind", "soft", "temperature")


def _only_with(config: LabelOptions, name: str, value: str, *options: str) -> None:
    """Refuse options that have been set, but mean nothing without a certain value of another.

    Raises:
        ConfigError: One line for each.
    """
    chosen = getattr(config, name)
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    wrong = [option for option in options if getattr(config, option) != defaults[option]]
    if wrong and chosen != value:
        raise ConfigError("\n".join(f"{option}: goes only with {name} {value}, not {chosen}" for option in wrong))
