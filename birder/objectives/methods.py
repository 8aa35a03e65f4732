"""All training methods: importing this module registers them, and builds one from its options."""

from collections.abc import Mapping, Sequence
from typing import Any

from birder.networks.base import Network
from birder.objectives import (
    barlow_twins,
    byol,
    classification,
    data2vec,
    data2vec2,
    dino,
    distillation,
    fcmae,
    i_jepa,
    ibot,
    mae,
    mmcr,
    rotation,
    simclr,
    simmim,
    vicreg,
)
from birder.objectives.base import Objective, objectives
from birder.objectives.configs import ObjectiveConfig
from birder.objectives.teacher import Teacher
from birder.signature import RGBStats

__all__ = [
    "barlow_twins",
    "byol",
    "classification",
    "create_objective",
    "data2vec",
    "data2vec2",
    "dino",
    "distillation",
    "fcmae",
    "i_jepa",
    "ibot",
    "mae",
    "mmcr",
    "objectives",
    "rotation",
    "simclr",
    "simmim",
    "vicreg",
]


def create_objective(
    config: ObjectiveConfig,
    network: Network,
    *,
    class_counts: Sequence[int] | None = None,
    class_to_idx: Mapping[str, int] | None = None,
    rgb_stats: RGBStats | None = None,
    teacher: Teacher | None = None,
) -> Objective:
    """Build the objective that ``config.name`` names, from the network and what it ``takes`` of the rest.

    Args:
        config: Options of a registered objective.
        network: What is trained.
        class_counts: Number of training pictures of each class, by label, as often as they are shown.
        class_to_idx: Label of each class name.
        rgb_stats: Colour statistics that the pictures are normalised with.
        teacher: The trained network that some objectives learn from, which they freeze.

    Raises:
        UnknownName: No such objective; near misses are suggested.
        ConfigError: The options do not fit the network, the classes or the teacher.
    """
    cls, _ = objectives[config.name]
    facts: dict[str, Any] = {
        "class_counts": class_counts,
        "class_to_idx": class_to_idx,
        "rgb_stats": rgb_stats,
        "teacher": teacher,
    }
    return cls(network, config, **{name: facts[name] for name in cls.takes if facts[name] is not None})
