"""A model in a file: weights, and all that is needed to use them.

Two formats, told apart by the suffix. ``.pt`` is a torch archive of one dictionary, read without executing code;
``.safetensors`` has the same entries as text in its header. The entries are those of the published models: ``state``,
``task``, ``signature``, ``class_to_idx``, ``rgb_stats``, ``birder_version`` and, where the network was built with
options of its own, ``config``; and one that only files of this package have: ``network``, its registered name.
"""

import errno
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import birder
from birder.errors import ModelFileError, UnknownName, WeightsMismatch
from birder.files import atomic
from birder.networks import Network, create_network, networks
from birder.signature import (
    RGB,
    RGBStats,
    get_channels_from_signature,
    get_num_classes_from_signature,
    get_size_from_signature,
    make_signature,
)

TASK = "image_classification"
FORMATS = (".pt", ".safetensors")


class ModelInfo(NamedTuple):
    """What a model file says beside the weights."""

    class_to_idx: dict[str, int]
    """Label of each class name."""
    signature: dict[str, Any]
    """Shapes of input and output; see ``birder.signature``."""
    rgb_stats: RGBStats
    """Colour statistics to normalise pictures with."""
    custom_config: dict[str, Any] | None
    """Options that differ from the registered network, None for none."""


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


def load_model(
    path: str | Path,
    *,
    network: str | None = None,
    config: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    inference: bool = True,
    device: torch.device | str | None = None,
) -> tuple[Network, ModelInfo]:
    """Build the network that a file describes, with the file's weights.

    Args:
        path: A ``.pt`` or ``.safetensors`` file.
        network: Registered name; needed only when neither the file nor its name tells.
        config: Options that replace those of the file and the registered ones.
        size: (height, width) to go on with, when not the one that the file was made for.
        inference: Evaluation mode and no gradients; otherwise training mode with gradients.
        device: Where the network goes; None is the CPU.

    Raises:
        ModelFileError: The file cannot be read, or does not tell which network it holds.
        WeightsMismatch: The weights are not those of the network.
        UnknownName: No network of that name.
    """
    path = Path(path)
    file = read_model(path)
    if file.task != TASK:
        raise ModelFileError(f"{path} is a model for {file.task}; this function loads models for {TASK}")
    custom = {**(file.config or {}), **(config or {})}
    net = create_network(
        network or file.network or _network_of_name(path),
        get_num_classes_from_signature(file.signature),
        input_channels=get_channels_from_signature(file.signature),
        size=get_size_from_signature(file.signature),
        **custom,
    )
    _load(net, file.state, path)
    if size is not None:
        net.adjust_size(size)
    if inference:
        net.eval().requires_grad_(False)
    if device is not None:
        net.to(device)
    return net, ModelInfo(file.class_to_idx, file.signature, file.rgb_stats, custom or None)


def load_model_with_cfg(
    cfg: str | Path | Mapping[str, Any], weights_path: str | Path | None
) -> tuple[Network, dict[str, Any]]:
    """Build the network that a configuration file describes; returns it, in training mode, and the configuration.

    Args:
        cfg: A JSON file, or its content.
        weights_path: A model file whose weights are loaded; None leaves the random ones.

    Raises:
        ModelFileError: A file cannot be read, or the configuration lacks an entry.
        WeightsMismatch: The weights are not those of the network.
    """
    cfg = dict(cfg) if isinstance(cfg, Mapping) else _read_json(Path(cfg))
    task, signature = cfg.get("task", TASK), cfg.get("signature")
    if task != TASK or signature is None:
        raise ModelFileError(f"a configuration needs a signature and the task {TASK}; this one has the task {task}")
    net = create_network(
        cfg.get("registered_name") or cfg.get("alias") or cfg.get("name") or "",
        get_num_classes_from_signature(signature),
        input_channels=get_channels_from_signature(signature),
        size=get_size_from_signature(signature),
        **(cfg.get("model_config") or {}),
    )
    if weights_path is not None:
        _load(net, read_model(Path(weights_path)).state, Path(weights_path))
    return net, cfg


def save_model(path: str | Path, network: Network, *, class_to_idx: Mapping[str, int], rgb_stats: RGBStats) -> None:
    """Write a network with all that is needed to use it, atomically.

    Args:
        path: Ends in ``.safetensors`` or ``.pt``; the folder must exist.
        network: One that ``create_network`` built.
        class_to_idx: Label of each class name.
        rgb_stats: Colour statistics of the pictures it was trained on.

    Raises:
        ModelFileError: Another suffix, or classes that are not those of the network.
    """
    if class_to_idx and sorted(class_to_idx.values()) != list(range(network.num_classes)):
        raise ModelFileError(
            f"class_to_idx must give each of the {network.num_classes} classes of the network one name; "
            f"it has {len(class_to_idx)} names"
        )
    file = ModelFile(
        state={name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()},
        signature=make_signature(network.num_classes, network.input_channels, network.size),
        class_to_idx=dict(class_to_idx),
        rgb_stats=rgb_stats,
        birder_version=f"v{birder.__version__}",
        network=network.name,
        config=_own_options(network),
    )
    write_model(Path(path), file)


def read_model(path: Path) -> ModelFile:
    """Read a model file without building a network.

    Raises:
        ModelFileError: Not there, damaged, of another kind, or with code in it.
    """
    check_format(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: {'a folder, not a model file' if path.is_dir() else 'no such file'}")
    entries = _read_pt(path) if path.suffix == ".pt" else _read_safetensors(path)
    state, signature = entries.get("state"), entries.get("signature")
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelFileError(f"{path} holds no weights under 'state': it is no model file of birder")
    if not isinstance(signature, Mapping):
        raise ModelFileError(f"{path} has no signature: it is no model file of birder, or only a training state")
    stats = entries.get("rgb_stats", entries.get("rgb_values"))  # the older word, until 2024
    try:
        rgb_stats: RGBStats = {"mean": _rgb(stats["mean"]), "std": _rgb(stats["std"])}  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has no colour statistics (rgb_stats with mean and std)") from error
    class_to_idx, config = entries.get("class_to_idx") or {}, entries.get("config") or {}
    labels: list[Any] = list(class_to_idx.values()) if isinstance(class_to_idx, Mapping) else [None]
    if not all(isinstance(label, int) for label in labels) or sorted(labels) != list(range(len(labels))):
        raise ModelFileError(f"{path}: class_to_idx does not give each class name a number of its own, from 0 on")
    if not isinstance(config, Mapping) or not isinstance(entries.get("network", ""), str):
        raise ModelFileError(f"{path}: config is no table of options, or network no name")
    return ModelFile(
        state=dict(state),
        signature=dict(signature),
        class_to_idx=dict(class_to_idx),
        rgb_stats=rgb_stats,
        task=entries.get("task", TASK),
        birder_version=entries.get("birder_version"),
        network=entries.get("network"),
        config=dict(config) or None,
    )


def write_model(path: Path, file: ModelFile) -> None:
    """Write all entries to a ``.pt`` or ``.safetensors`` file, atomically.

    Raises:
        ModelFileError: Another suffix.
    """
    check_format(path)
    entries = {
        name: getattr(file, name)
        for name in ("task", "signature", "class_to_idx", "rgb_stats", "birder_version", "network", "config")
        if getattr(file, name) is not None
    }
    with atomic(path) as temporary:
        if path.suffix == ".pt":
            torch.save({"state": file.state, **entries}, temporary)
        else:
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}
            _save_safetensors(file.state, temporary, texts)


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Copy weights into a network, all of them, by name; older names of the architecture are translated.

    Raises:
        WeightsMismatch: Names or shapes differ; the message counts and names them, and nothing was loaded.
    """
    state = {_renamed(name, network.renamed): tensor for name, tensor in state.items()}
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not known to the network" for name in state if name not in own]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        shown = "; ".join(wrong[:6]) + ("; …" if len(wrong) > 6 else "")
        raise WeightsMismatch(f"{len(wrong)} of {len(own)} weights do not fit {network.name}: {shown}")
    network.load_state_dict(state)


def check_format(path: Path) -> None:
    """Accept the suffixes of model files.

    Raises:
        ModelFileError: Another suffix.
    """
    if path.suffix not in FORMATS:
        raise ModelFileError(f"{path}: a model file ends in {' or '.join(FORMATS)}")


def _load(net: Network, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        load_weights(net, state)
    except WeightsMismatch as error:
        raise WeightsMismatch(f"{path}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} is no readable JSON configuration: {error}") from error


def _save_safetensors(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:  # it wraps a full disk and the like
        raise OSError(errno.EIO, _first_line(error), str(path)) from error


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _read_pt(path: Path) -> dict[str, Any]:
    try:
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        entries = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} holds Python objects that only running its code could read, so it was not read"
        ) from error
    except Exception as error:  # damaged bytes lead the unpickler to errors of any kind
        raise ModelFileError(
            f"{path} is damaged or no torch file ({_first_line(error)}); get the file again"
        ) from error
    if not isinstance(entries, dict):
        raise ModelFileError(f"{path} holds a {type(entries).__name__}, not the dictionary of a model file")
    return entries


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        # Others may stand beside ours, such as "format", or the names of shared tensors.
        entries = {name: metadata[name] for name in ("task", "birder_version", "network") if name in metadata}
        for name in ("signature", "class_to_idx", "rgb_stats", "rgb_values", "config"):
            if metadata.get(name):
                entries[name] = json.loads(metadata[name])
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged or no safetensors file ({_first_line(error)})") from error
    return {"state": state, **entries}


def _network_of_name(path: Path) -> str:
    """The longest registered name that the file's name begins with."""
    fitting = [name for name in networks if re.match(rf"{re.escape(name)}(_|$)", path.stem)]
    if not fitting:
        raise ModelFileError(f"{path} does not say which network it holds: name it (network=…, --network …)")
    return max(fitting, key=len)


def _own_options(network: Network) -> dict[str, Any] | None:
    if network.name not in networks:
        raise UnknownName(f"{network.name!r} is no registered network: only those can be saved")
    registered = vars(networks[network.name][1])
    own = {name: value for name, value in vars(network.config).items() if registered.get(name) != value}
    return own or None


def _rgb(values: Any) -> RGB:
    return tuple(float(value) for value in values)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
