"""The network that a run begins with: new, or that of a model file or a published model."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from birder.data.samples import Samples
from birder.errors import ConfigError, ModelFileError, WeightsMismatch
from birder.hub.fetch import locate
from birder.model_file import ModelFile, load_model, read_model
from birder.model_file.versions import adaptation
from birder.model_file.weights import first_not_finite, translated
from birder.networks import Network, create_network, networks
from birder.objectives.base import Objective
from birder.objectives.methods import create_objective
from birder.objectives.teacher import Teacher
from birder.signature import (
    RGBStats,
    get_channels_from_signature,
    get_num_classes_from_signature,
    get_size_from_signature,
    rgb_stats,
)
from birder.training.recipe import Recipe

logger = logging.getLogger("birder")

DEFAULT_NETWORK = "convnext_v2_atto"
DEFAULT_SIZE = (224, 224)
INPUT_CHANNELS = 3
"""Pictures are RGB."""


class Start:
    """Where a run begins.

    Attributes:
        recipe: The recipe with network, size and colours decided.
        rgb_stats: Colour statistics of the pictures.
        options: Options of the network, those of the start's file and those of the recipe.
    """

    def __init__(self, recipe: Recipe, saved: Mapping[str, Any] | None = None) -> None:
        """Look at what ``recipe.start`` names, if it names something.

        Args:
            recipe: Every choice of the run.
            saved: What ``state_dict`` gave to a checkpoint of the run. As that has all weights, too, the start is not
                looked at: it may be gone by now.

        Raises:
            ConfigError: The start holds another network than the recipe asks for, or colours of other channels.
            BirderError: The start cannot be had, or not be read.
        """
        self.options: dict[str, Any] = dict(recipe.network_options)
        self._file: ModelFile | None = None
        self._loaded: Network | None = None
        left_open: dict[str, Any] = {"network": DEFAULT_NETWORK, "size": DEFAULT_SIZE, "rgb": "imagenet"}
        if saved is not None:
            left_open, self.options = {name: saved[name] for name in left_open}, saved["options"]
        elif recipe.start is not None:
            left_open |= self._read(recipe, *locate(recipe.start))
        decided = {name: getattr(recipe, name) or value for name, value in left_open.items()}
        self.recipe = replace(recipe, **decided | {"network": decided["network"].lower()})
        self.rgb_stats: RGBStats = saved["rgb_stats"] if saved is not None else self._colours()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know of its start."""
        recipe = self.recipe
        own = {"network": recipe.network, "size": recipe.size, "rgb": recipe.rgb}
        return {**own, "options": self.options, "rgb_stats": dict(self.rgb_stats)}

    def network(self, class_to_idx: Mapping[str, int]) -> Network:
        """The network, for these species and the recipe's size, in training mode.

        Raises:
            ConfigError: A size, or stages to freeze, that the network does not have.
            WeightsMismatch: Not one weight of the start fits.
        """
        network = self._loaded or self._new(len(class_to_idx))
        if network.input_channels != INPUT_CHANNELS:
            network.adjust_input_channels(INPUT_CHANNELS)
        if network.size != self.recipe.size:
            network.adjust_size(_pair(self.recipe.size))
        if self._file is not None and self._file.class_to_idx != class_to_idx:
            new = f"a new classifier, for {len(class_to_idx)} species" if class_to_idx else "without its classifier"
            logger.info("%s: %s", self.recipe.start, new)
            network.reset_classifier(len(class_to_idx))
        if self.recipe.freeze is not None:
            network.freeze(None if self.recipe.freeze == "network" else self.recipe.freeze)
        return network

    def objective(self, network: Network, samples: Samples) -> Objective:
        """What is learned from these pictures, by this network.

        Raises:
            ConfigError: The objective cannot be learned by this network, or from this teacher.
            BirderError: The teacher cannot be had.
        """
        config = self.recipe.objective
        teacher = getattr(config, "teacher", None)
        return create_objective(
            config,
            network,
            class_counts=_shown(samples, self.recipe.balance),
            class_to_idx=samples.class_to_idx,
            rgb_stats=self.rgb_stats,
            teacher=_teacher(teacher) if teacher is not None else None,
        )

    def _read(self, recipe: Recipe, path: Path, network: str | None) -> dict[str, Any]:
        """Read the start, and build its network if that is what is trained; returns what it says to an open recipe."""
        self._file = file = read_model(path)
        said: dict[str, Any] = {"size": get_size_from_signature(file.signature)}
        if len(file.rgb_stats["mean"]) == INPUT_CHANNELS:
            said["rgb"] = "start"
        network = network or file.network
        same = recipe.network is None or network is None or recipe.network.lower() == network.lower()
        if recipe.start_strict and not same:
            raise ConfigError(
                f"network: {recipe.start} holds {network}, not {recipe.network}; leave network out, or take over what "
                "fits with start_strict = false"
            )
        if recipe.start_strict:
            # Of a file that does not tell which network it holds, the recipe may know.
            name = network or recipe.network
            self._loaded, info = load_model(path, network=name, config=recipe.network_options, inference=False)
            network, self.options = self._loaded.name, dict(info.custom_config or {})
        elif network is not None and same:
            options = {**(file.config or {}), **recipe.network_options}
            self.options = {**options, **adaptation(networks[network.lower()][0], file.birder_version, options)[0]}
        elif network is None and recipe.network is None:
            raise ConfigError(f"network: {recipe.start} does not say which network it holds; name the one to train")
        return said if network is None else {**said, "network": network}

    def _colours(self) -> RGBStats:
        if self.recipe.rgb != "start" or self._file is None:
            return rgb_stats(self.recipe.rgb or "")
        stats = self._file.rgb_stats
        if len(stats["mean"]) != INPUT_CHANNELS:
            raise ConfigError(
                f"rgb: {self.recipe.start} has colour statistics of {len(stats['mean'])} channels, and pictures have "
                f"{INPUT_CHANNELS}: choose others"
            )
        return stats

    def _new(self, num_classes: int) -> Network:
        """The network with random weights, but for those of the start that fit."""
        name, file = self.recipe.network or "", self._file
        if file is None:
            return create_network(name, num_classes, size=_pair(self.recipe.size), **self.options)
        # In the form of the file, so that as much of it fits as can; all this is changed with the network afterwards.
        network = create_network(
            name,
            get_num_classes_from_signature(file.signature),
            input_channels=get_channels_from_signature(file.signature),
            size=get_size_from_signature(file.signature),
            **self.options,
        )
        _take_over(network, file, str(self.recipe.start))
        return network


def _shown(samples: Samples, balance: float) -> list[int]:
    """How many pictures of each class an epoch shows."""
    counts = np.bincount(samples.labels, minlength=len(samples.class_to_idx)).astype(float)
    shares = np.where(counts > 0, counts ** (1.0 - balance), 0.0)
    return [round(count) for count in shares * (counts.sum() / shares.sum())]


def _teacher(name: str) -> Teacher:
    path, network = locate(name)
    net, info = load_model(path, network=network)
    return Teacher(network=net, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)


def _take_over(network: Network, file: ModelFile, name: str) -> None:
    """Copy the weights that fit by name and shape, and log what was left out."""
    own, state = network.state_dict(), translated(network, file.state)
    fitting = {key: tensor for key, tensor in state.items() if key in own and own[key].shape == tensor.shape}
    # The classifiers of any two networks with as many classes have biases of one shape.
    if all(key.startswith("classifier.") for key in fitting):
        raise WeightsMismatch(
            f"{name}: not one of its {len(state)} weights fits {network.name}; name the network that it holds, or one "
            "of its kind"
        )
    network.load_state_dict(fitting, strict=False)
    if (broken := first_not_finite(network)) is not None:
        raise ModelFileError(
            f"{name}: {broken} has values that are infinite or no numbers; get the file again, or an older one"
        )
    for what, keys in (("left out", state.keys() - fitting.keys()), ("new", own.keys() - fitting.keys())):
        if keys:
            logger.info("%s: %d weights are %s: %s", name, len(keys), what, ", ".join(sorted(keys)))


def _pair(size: tuple[int, ...] | None) -> tuple[int, int]:
    height, width = size or DEFAULT_SIZE
    return (height, width)
