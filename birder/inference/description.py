"""What is known of a model without its weights, and kept so that the next start needs neither them nor torch."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birder.errors import BirderError
from birder.files import write_text
from birder.model_file.calibration import Calibration, from_entry, to_entry
from birder.signature import RGBStats

if TYPE_CHECKING:
    from birder.model_file import ModelInfo
    from birder.networks.base import Network

logger = logging.getLogger("birder")

_FILE = "description.json"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is needed of a model beside what its network computes."""

    network: str
    """Registered name of the network."""
    size: tuple[int, int]
    """(height, width) of its pictures."""
    input_channels: int
    """Channels of its pictures."""
    num_classes: int
    """Classes, 0 without classifier."""
    embedding_size: int
    """Numbers of its embedding."""
    class_to_idx: Mapping[str, int]
    """Label of each class name."""
    rgb_stats: RGBStats
    """Colour statistics to normalise pictures with."""
    calibration: Calibration | None
    """What ``birder calibrate`` found; None if nobody looked."""
    adapted: str = ""
    """What was adapted in a file of an older version, or of a pretraining."""


def described(network: "Network", info: "ModelInfo") -> Description:
    """What is known of a model that was loaded."""
    return Description(
        network=network.name,
        size=network.size,
        input_channels=network.input_channels,
        num_classes=network.num_classes,
        embedding_size=network.embedding_size,
        class_to_idx=info.class_to_idx,
        rgb_stats=info.rgb_stats,
        calibration=info.calibration,
        adapted=info.adapted,
    )


def write_description(folder: Path, description: Description) -> None:
    """Keep what is known in a folder; where that fails, it is logged, and found out again next time."""
    values = vars(description) | {
        "calibration": None if description.calibration is None else to_entry(description.calibration)
    }
    try:
        write_text(folder / _FILE, json.dumps(values) + "\n")
    except OSError as error:
        logger.info("%s: cannot be kept: %s", folder / _FILE, error)


def read_description(folder: Path) -> Description | None:
    """What was kept in a folder; None if that is nothing, or damaged."""
    try:
        values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return _checked(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, BirderError) as error:
        logger.info("%s: damaged, and made anew: %s", folder / _FILE, error)
        return None


def _checked(values: dict[str, Any]) -> Description:
    """What such values say.

    Raises:
        ValueError: They make no sense; and the errors of values that are missing or of other types.
    """
    height, width = map(int, values["size"])
    mean, std = (tuple(map(float, values["rgb_stats"][name])) for name in ("mean", "std"))
    channels, classes, embedding = (int(values[name]) for name in ("input_channels", "num_classes", "embedding_size"))
    if min(height, width, channels, embedding) < 1 or classes < 0 or len(mean) != len(std) or min(std) <= 0:
        raise ValueError("the numbers are out of range")
    entry = values["calibration"]
    return Description(
        network=str(values["network"]),
        size=(height, width),
        input_channels=channels,
        num_classes=classes,
        embedding_size=embedding,
        class_to_idx={str(name): int(label) for name, label in values["class_to_idx"].items()},
        rgb_stats={"mean": mean, "std": std},
        calibration=None if entry is None else from_entry(entry, classes),
        adapted=str(values["adapted"]),
    )
