"""Options of the objectives.

They stand apart from the objectives so that a recipe is read and checked before torch is loaded.
"""

from birder.objectives.configs.base import ObjectiveConfig, Unlabelled, Views
from birder.objectives.configs.labelled import ClassificationConfig, DistillationConfig, LabelOptions
from birder.objectives.configs.masked import (
    Data2Vec2Config,
    Data2VecConfig,
    FCMAEConfig,
    IJEPAConfig,
    MAEConfig,
    Masked,
    SimMIMConfig,
)
from birder.objectives.configs.views import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    IBOTConfig,
    MMCRConfig,
    RotationConfig,
    SelfSorting,
    SimCLRConfig,
    TwoViews,
    VICRegConfig,
)

__all__ = [
    "BYOLConfig",
    "BarlowTwinsConfig",
    "ClassificationConfig",
    "DINOConfig",
    "Data2Vec2Config",
    "Data2VecConfig",
    "DistillationConfig",
    "FCMAEConfig",
    "IBOTConfig",
    "IJEPAConfig",
    "LabelOptions",
    "MAEConfig",
    "MMCRConfig",
    "Masked",
    "ObjectiveConfig",
    "RotationConfig",
    "SelfSorting",
    "SimCLRConfig",
    "SimMIMConfig",
    "TwoViews",
    "Unlabelled",
    "VICRegConfig",
    "Views",
]
