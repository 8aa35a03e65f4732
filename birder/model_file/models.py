"""Networks from model files, and into them."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

import birder
from birder.errors import BirderError, ModelFileError, UnknownName, WeightsMismatch
from birder.model_file.calibration import Calibration, check_embedding
from birder.model_file.contents import TASK, ModelFile, check_signature, read_model, write_model
from birder.model_file.formats import first_sentence
from birder.model_file.pretraining import configuration_of_network
from birder.model_file.versions import adaptation
from birder.model_file.weights import build_with_weights, first_not_finite
from birder.networks import Network, create_network, networks
from birder.signature import (
    RGBStats,
    get_channels_from_signature,
    get_num_classes_from_signature,
    get_size_from_signature,
    make_signature,
)

logger = logging.getLogger("birder")


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
    calibration: Calibration | None = None
    """What ``birder calibrate`` found; None if nobody looked, or for a network of other options or another size."""
    adapted: str = ""
    """What was done so that a file of an older version, or of a pretraining, gives the numbers that its writer got."""


def load_model(
    path: str | Path,
    *,
    network: str | None = None,
    config: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    inference: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Network, ModelInfo]:
    """Build the network that a file describes, with the file's weights.

    A file of an older version gives the numbers that its writer got; the logger ``birder`` says what was adapted. Of a
    file of a pretraining it is the network that was pretrained, without classifier.

    Args:
        path: A ``.pt`` or ``.safetensors`` file.
        network: Registered name; needed only when neither the file nor its name tells.
        config: Options that replace those of the file and the registered ones.
        size: (height, width) to go on with, when not the one that the file was made for.
        inference: Evaluation mode and no gradients; otherwise training mode with gradients.
        device: Where the network goes; None is the CPU.
        dtype: Type of the weights; None is float32, whatever the file has.

    Raises:
        ModelFileError: The file cannot be read, has weights that are no numbers, or does not tell which network it
            holds.
        WeightsMismatch: The weights are not those of the network.
        ConfigError: Options that the network does not have, or of a wrong type.
        UnknownName: No network of that name.
    """
    path = Path(path)
    file = read_model(path)
    with _named(path):
        _must_be_for_classification(file.task)
        name = network or file.network or _network_of_name(path, anywhere=file.taken_from is not None)
        net, custom, adapted = _build(name, file.signature, {**(file.config or {}), **(config or {})}, (path, file))
        calibration = None if config else file.calibration
        if calibration is not None:
            check_embedding(calibration, net.embedding_size)
    if size is not None:
        made_for = net.size
        net.adjust_size(size)
        calibration = calibration if net.size == made_for else None  # it says nothing of the answers at another size
    if inference:
        net.eval().requires_grad_(False)
    net.to(device=device, dtype=dtype)
    return net, ModelInfo(file.class_to_idx, file.signature, file.rgb_stats, custom or None, calibration, adapted)


def load_model_with_cfg(
    cfg: str | Path | Mapping[str, Any], weights_path: str | Path | None
) -> tuple[Network, dict[str, Any]]:
    """Build the network that a configuration file describes; returns it, in training mode, and the configuration.

    Of the configuration of a pretraining it is the network that is pretrained, without classifier.

    Args:
        cfg: A JSON file, or its content.
        weights_path: A model file whose weights are loaded; None leaves the random ones.

    Raises:
        ModelFileError: A file cannot be read, or the configuration lacks an entry.
        WeightsMismatch: The weights are not those of the network.
        ConfigError: Options that the network does not have, or of a wrong type.
        UnknownName: No network of that name.
    """
    content = dict(cfg) if isinstance(cfg, Mapping) else _read_json(Path(cfg))
    source = None if weights_path is None else (Path(weights_path), read_model(Path(weights_path)))
    about = "the configuration" if isinstance(cfg, Mapping) else str(cfg)
    with _named(about if source is None else f"{about}, with the weights of {source[0]}"):
        own = configuration_of_network(content)
        _must_be_for_classification(own.get("task", TASK))
        signature, options = own.get("signature"), own.get("model_config") or {}
        if not isinstance(signature, Mapping) or not isinstance(options, Mapping):
            raise ModelFileError("signature and model_config must be tables; take the file that came with the weights")
        check_signature(signature)
        net, _, _ = _build(_network_of_config(own), signature, options, source)
    return net, content


def save_model(
    path: str | Path,
    network: Network,
    *,
    class_to_idx: Mapping[str, int],
    rgb_stats: RGBStats,
    calibration: Calibration | None = None,
) -> None:
    """Write a network with all that is needed to use it, atomically.

    Args:
        path: Ends in ``.safetensors`` or ``.pt``; the folder must exist.
        network: One that ``create_network`` built.
        class_to_idx: Label of each class name.
        rgb_stats: Colour statistics of the pictures it was trained on.
        calibration: What was found about just these weights.

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
        calibration=calibration,
    )
    write_model(Path(path), file)


def _build(
    name: str, signature: Mapping[str, Any], options: Mapping[str, Any], source: tuple[Path, ModelFile] | None
) -> tuple[Network, dict[str, Any], str]:
    """A network with the weights of a file, or random ones, the options it was built with, and what was adapted."""
    name, options = name.lower(), dict(options)
    notes = []
    if source is not None:
        adapted, reason = adaptation(networks[name][0], source[1].birder_version, options)
        options |= adapted
        if adapted:
            changed = ", ".join(f"{option} = {value}" for option, value in adapted.items())
            notes.append(f"{reason} ({changed})")

    def build() -> Network:
        return create_network(
            name,
            get_num_classes_from_signature(signature),
            input_channels=get_channels_from_signature(signature),
            size=get_size_from_signature(signature),
            **options,
        )

    try:
        net = build() if source is None else build_with_weights(build, source[1].state)
    except WeightsMismatch as error:
        raise WeightsMismatch(f"{error}; name the network that the file holds (network=…, --network …)") from error
    except BirderError:
        raise
    except Exception as error:  # options of the right types may still fit no network
        raise ModelFileError(
            f"its options build no {name} ({first_sentence(error)}): {options}; correct them"
        ) from error
    said = "" if source is None else _examined(net, *source, notes)
    return net, options, said


def _examined(net: Network, path: Path, file: ModelFile, notes: list[str]) -> str:
    """Refuse weights that are no numbers; log, and give, what was adapted to the version of the file."""
    broken = first_not_finite(net)
    if broken:
        raise ModelFileError(
            f"{broken} has values that are infinite or no numbers; get the file again, or an older one"
        )
    if file.taken_from is not None:
        notes = [f"of a pretraining, only the network is loaded, {len(file.state)} weights {file.taken_from}*", *notes]
    renamed = len(file.state.keys() - net.state_dict().keys())
    if renamed:
        notes = [f"{renamed} weights have other names today", *notes]
    if not notes:
        return ""
    writer = f"written by birder {file.birder_version}" if file.birder_version else "without a version"
    adapted = f"{writer}: {'; '.join(notes)}"
    logger.info("%s, %s", path, adapted)
    return adapted


def _must_be_for_classification(task: object) -> None:
    if task != TASK:
        raise ModelFileError(f"is a model for {task}; this function loads models for {TASK}")


@contextmanager
def _named(about: str | Path) -> Iterator[None]:
    """Begin the message of every error with what it is about."""
    try:
        yield
    except BirderError as error:
        raise type(error)(f"{about}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} is no readable JSON configuration: {error}") from error


def _network_of_name(path: Path, *, anywhere: bool) -> str:
    """The longest registered name that the file's name begins with; or that it has, behind the name of a method."""
    before = "(.+_)?" if anywhere else ""
    fitting = [name for name in networks if re.match(rf"{before}{re.escape(name)}(_|$)", path.stem)]
    if not fitting:
        raise ModelFileError("does not say which network it holds: name it (network=…, --network …)")
    return max(fitting, key=len)


def _network_of_config(content: Mapping[str, Any]) -> str:
    """The registered name in a JSON configuration, under the words of any version."""
    given = content.get("registered_name") or content.get("alias")  # the latter before 0.4.13
    family, number = content.get("name"), content.get("net_param")  # the latter in the oldest, for a width or depth
    for name in (given, f"{family}_{number}", family):
        if str(name).lower() in networks:
            return str(name)
    if given:
        networks[str(given)]  # which says what is there
    # An architecture with all its options: any of its networks, with these, is the one.
    members = [name for name, (cls, _) in networks.items() if cls.__module__.endswith(f".{family}")]
    if not members or not content.get("model_config"):
        raise ModelFileError(f"does not say which network it describes (name: {family!r}); add its registered_name")
    return members[0]


def _own_options(network: Network) -> dict[str, Any] | None:
    if network.name not in networks:
        raise UnknownName(f"{network.name!r} is no registered network: only those can be saved")
    registered = vars(networks[network.name][1])
    own = {name: value for name, value in vars(network.config).items() if registered.get(name) != value}
    return own or None
