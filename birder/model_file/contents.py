"""The entries of a model file, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from birder.errors import ModelFileError
from birder.model_file.calibration import Calibration, from_entry, to_entry
from birder.model_file.formats import read_entries, write_entries
from birder.model_file.pretraining import PREFIXES, network_alone, without_classes
from birder.signature import RGBStats, get_channels_from_signature, get_num_classes_from_signature

TASK = "image_classification"

# What no picture and no model comes near to; numbers beyond are damage.
_LARGEST_SIDE, _MOST_CHANNELS, _MOST_CLASSES = 65_536, 4_096, 10_000_000

_AGAIN = "get the file again, or have it written anew with save_model"
_WHOLE = "get the whole model, or write it with save_model"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """All entries of a model file."""

    state: dict[str, Tensor]
    """Weights by name."""
    signature: dict[str, Any]
    """Shapes of input and output."""
    class_to_idx: dict[str, int]
    """Label of each class name; empty for a network without classifier."""
    rgb_stats: RGBStats
    """Colour statistics to normalise pictures with."""
    task: str = TASK
    """What the network does."""
    birder_version: str | None = None
    """Version that wrote the file, with a leading ``v``; None in the oldest."""
    network: str | None = None
    """Registered name of the network; None in files of other packages."""
    config: dict[str, Any] | None = None
    """Options that differ from the registered ones."""
    calibration: Calibration | None = None
    """What was found on held-out pictures; None if nobody looked."""
    taken_from: str | None = None
    """What the names of the weights began with in a file of a pretraining, whose other parts were left out."""


def read_model(path: Path) -> ModelFile:
    """Read a model file without building a network; of a pretraining, only what concerns the network.

    The weights are mapped from the file, not read; whether they are numbers is seen when a network is built.

    Raises:
        ModelFileError: Not there, damaged, of another kind, or with code in it.
    """
    entries = read_entries(path)
    try:
        return _checked(entries)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def write_model(path: Path, file: ModelFile) -> None:
    """Write all entries to a ``.pt`` or ``.safetensors`` file, atomically.

    Raises:
        ModelFileError: Another suffix.
    """
    names = ("task", "signature", "class_to_idx", "rgb_stats", "birder_version", "network", "config")
    entries = {name: getattr(file, name) for name in names}
    entries["calibration"] = None if file.calibration is None else to_entry(file.calibration)
    write_entries(path, file.state, {name: value for name, value in entries.items() if value is not None})


def check_signature(signature: Mapping[str, Any], classes: int | None = None) -> None:
    """Accept a signature of pictures and classes.

    Args:
        signature: See ``birder.signature``.
        classes: How many class names there are, to be compared; None for none.

    Raises:
        ModelFileError: Numbers are missing, out of range, or contradict each other.
    """
    _, channels, height, width = _shape(signature, "inputs", "(0, channels, height, width)")
    _, outputs = _shape(signature, "outputs", "(0, classes)")
    in_range = 0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE and 0 < channels <= _MOST_CHANNELS
    if not in_range or not 0 <= outputs <= _MOST_CLASSES or signature.get("num_labels", outputs) != outputs:
        raise ModelFileError(f"the numbers of the signature are out of range: {_brief(signature)}; {_AGAIN}")
    if classes is not None and classes != outputs:
        raise ModelFileError(f"class_to_idx has {classes} names, but the signature says {outputs} classes; {_AGAIN}")


def _shape(signature: Mapping[str, Any], part: str, meaning: str) -> tuple[int, ...]:
    try:
        shape = tuple(signature[part][0]["data_shape"])
    except (KeyError, IndexError, TypeError):
        shape = ()
    if len(shape) != meaning.count(",") + 1 or not all(type(number) is int for number in shape):
        raise ModelFileError(
            f"the signature has no {part}[0].data_shape of {meaning}, but {_brief(signature)}; {_AGAIN}"
        )
    return shape


def _checked(entries: dict[str, Any]) -> ModelFile:
    state, signature = _state(entries), _signature(entries)
    task, version, network = entries.get("task", TASK), entries.get("birder_version"), entries.get("network")
    if not (isinstance(task, str) and isinstance(version, str | None) and isinstance(network, str | None)):
        raise ModelFileError(f"task, birder_version or network no name: {task!r}, {version!r}, {network!r}; {_AGAIN}")
    config = entries.get("config") or {}
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise ModelFileError(f"config is no table of options: {_brief(config)}; {_AGAIN}")
    class_to_idx = _class_to_idx(entries, task)
    taken_from = None
    if task in PREFIXES:  # whose options are not those of the network
        state, taken_from = network_alone(state, task)
        signature, class_to_idx, config, task = without_classes(signature), {}, {}, TASK
    channels = 3
    if task == TASK:
        check_signature(signature, len(class_to_idx) or None)
        channels = get_channels_from_signature(signature)
    return ModelFile(
        state=state,
        signature=signature,
        class_to_idx=class_to_idx,
        rgb_stats=_rgb_stats(entries, channels),
        task=task,
        birder_version=version,
        network=network,
        config=dict(config) or None,
        calibration=_calibration(entries, signature) if task == TASK and taken_from is None else None,
        taken_from=taken_from,
    )


def _calibration(entries: dict[str, Any], signature: Mapping[str, Any]) -> Calibration | None:
    entry = entries.get("calibration")
    return None if entry is None else from_entry(entry, get_num_classes_from_signature(signature))


def _state(entries: dict[str, Any]) -> dict[str, Tensor]:
    if "optimizer_state" in entries:
        raise ModelFileError("this is the state of a training; load the model, which stands in a file beside it")
    state = entries.get("state")
    if not isinstance(state, Mapping):
        raise ModelFileError(f"it holds no weights under 'state': it is no model file of birder; {_WHOLE}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelFileError(f"state has something else than weights, {_brief(name)}; {_WHOLE}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise ModelFileError(
                f"{name} is sparse, quantised, complex or without numbers; save plain floating numbers"
            )
    return dict(state)


def _signature(entries: dict[str, Any]) -> dict[str, Any]:
    signature = entries.get("signature")
    if not isinstance(signature, Mapping):
        raise ModelFileError(f"it has no signature: it is no model file of birder, or only a part of one; {_WHOLE}")
    return dict(signature)


def _class_to_idx(entries: dict[str, Any], task: str) -> dict[str, int]:
    table = entries.get("class_to_idx") or {}
    if isinstance(table, Mapping) and all(isinstance(name, str) and type(table[name]) is int for name in table):
        first = 0 if task == TASK else min(table.values(), default=0)  # detection keeps 0 for the background
        if sorted(table.values()) == list(range(first, first + len(table))):
            return dict(table)
    raise ModelFileError(f"class_to_idx does not give each class name a number of its own, from 0 on; {_AGAIN}")


def _rgb_stats(entries: dict[str, Any], channels: int) -> RGBStats:
    stats = entries.get("rgb_stats", entries.get("rgb_values"))  # the older word, until 2024
    try:
        mean, std = (tuple(float(number) for number in stats[name]) for name in ("mean", "std"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"it has no colour statistics (rgb_stats with mean and std); {_AGAIN}") from error
    if (
        len(mean) != len(std)
        or len(mean) not in (3, channels)
        or not all(map(math.isfinite, mean + std))
        or min(std) <= 0
    ):
        raise ModelFileError(f"rgb_stats needs a mean and a std above 0 for each colour: {_brief(stats)}; {_AGAIN}")
    return {"mean": mean, "std": std}


def _brief(value: Any) -> str:
    """The value in a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} …"
