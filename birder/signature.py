"""What travels with the weights: the shape of input and output, and the colour statistics of the training pictures."""

from collections.abc import Mapping
from typing import Any, TypedDict

from birder.errors import ModelFileError, UnknownName, suggestion

RGB = tuple[float, ...]


class RGBStats(TypedDict):
    """Colour statistics of values in 0-1, one number per channel: three, or as many as the pictures have."""

    mean: RGB
    std: RGB


PRESETS: dict[str, RGBStats] = {
    "birder": {"mean": (0.5191, 0.5306, 0.4877), "std": (0.2316, 0.2304, 0.2588)},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "clip": {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
    "neutral": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    "centered": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
}


def rgb_stats(preset: str) -> RGBStats:
    """Colour statistics of a named preset.

    A published model brings its own statistics in its file; a preset is only for new models.

    Raises:
        UnknownName: No such preset.
    """
    if preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise UnknownName(f"no colour preset is called {preset!r}{suggestion(preset, PRESETS)} (there are: {known})")
    return PRESETS[preset]


def make_signature(num_classes: int, input_channels: int, size: tuple[int, int]) -> dict[str, Any]:
    """The published form: a dictionary with the shapes of input (B, C, H, W) and output (B, classes), B free (0)."""
    return {
        "inputs": [{"data_shape": [0, input_channels, *size]}],
        "outputs": [{"data_shape": [0, num_classes]}],
    }


def get_size_from_signature(signature: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the pictures that the model was made for.

    Raises:
        ModelFileError: The signature does not have the published form.
    """
    height, width = _input_shape(signature)[2:4]
    return (height, width)


def get_channels_from_signature(signature: Mapping[str, Any]) -> int:
    """Number of input channels.

    Raises:
        ModelFileError: The signature does not have the published form.
    """
    return _input_shape(signature)[1]


def get_num_classes_from_signature(signature: Mapping[str, Any]) -> int:
    """Number of classes; 0 for a network without classifier.

    Raises:
        ModelFileError: The signature does not have the published form.
    """
    if "num_labels" in signature:
        return int(signature["num_labels"])
    try:
        return int(signature["outputs"][0]["data_shape"][1])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelFileError("the signature has no outputs[0].data_shape of (0, classes)") from error


def _input_shape(signature: Mapping[str, Any]) -> tuple[int, int, int, int]:
    try:
        batch, channels, height, width = (int(number) for number in signature["inputs"][0]["data_shape"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelFileError("the signature has no inputs[0].data_shape of (0, channels, height, width)") from error
    return (batch, channels, height, width)
