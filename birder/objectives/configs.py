"""Options of the objectives.

They stand apart from the objectives so that a recipe is read and checked before torch is loaded.
"""

from dataclasses import dataclass

from birder.config import within


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Learn the species from labelled pictures."""

    smoothing: float = 0.1
    """Share of the target, 0 to 1, spread evenly over all classes (label smoothing)."""
    mixup: float = 0.0
    """Blend two pictures and their labels; the blend is drawn from Beta(mixup, mixup). 0 is off."""
    cutmix: float = 0.0
    """Paste a part of one picture into another; its area is drawn from Beta(cutmix, cutmix). 0 is off."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed, when mixup or cutmix is on."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 1.0, "smoothing", "mix_probability")
        within(self, 0.0, float("inf"), "mixup", "cutmix")
