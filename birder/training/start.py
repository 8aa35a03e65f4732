"""The network that a run begins with: new, or that of a model file or a published model."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from birder.data.samples import Samples
from birder.errors import ConfigError, WeightsMismatch
from birder.hub.fetch import locate
from birder.model_file import ModelFile, load_model, read_model
from birder.networks import Network, create_network
from birder.objectives.base import Objective
from birder.objectives.methods import create_objective
from birder.objectives.teacher import Teacher
from birder.signature import RGBStats, get_size_from_signature, rgb_stats
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
    """

    def __init__(self, recipe: Recipe) -> None:
        """Look at what ``recipe.start`` names, if it names something.

        Raises:
            ConfigError: The start holds another network than the recipe asks for.
            BirderError: The start cannot be had, or not be read.
        """
        self._file: ModelFile | None = None
        self._loaded: Network | None = None
        network, size = DEFAULT_NETWORK, DEFAULT_SIZE
        if recipe.start is not None:
            path, name = locate(recipe.start)
            self._file = read_model(path)
            size = get_size_from_signature(self._file.signature)
            if recipe.start_strict:
                self._loaded, _ = load_model(path, network=name, config=recipe.network_options, inference=False)
                name = self._loaded.name
            network = name or self._file.network or network
        wanted = (recipe.network or network).lower()
        if self._loaded is not None and wanted != network:
            raise ConfigError(
                f"network: {recipe.start} holds {network}, not {wanted}; leave network out, or take over what fits "
                "with start_strict = false"
            )
        colours = recipe.rgb or ("start" if self._file else "imagenet")
        self.recipe = replace(recipe, network=wanted, size=recipe.size or size, rgb=colours)
        self.rgb_stats: RGBStats = self._file.rgb_stats if colours == "start" and self._file else rgb_stats(colours)

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
        if self._loaded is not None and self._file is not None and self._file.class_to_idx != class_to_idx:
            logger.info("%s: a new classifier, for %d species", self.recipe.start, len(class_to_idx))
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

    def _new(self, num_classes: int) -> Network:
        options: dict[str, Any] = dict(self.recipe.network_options)
        # In the size of the file, so that its tables of positions fit; they are resampled with the network afterwards.
        size = get_size_from_signature(self._file.signature) if self._file else _pair(self.recipe.size)
        network = create_network(self.recipe.network or "", num_classes, size=size, **options)
        if self._file is not None:
            _take_over(network, self._file, str(self.recipe.start))
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
    own = network.state_dict()
    fitting = {key: tensor for key, tensor in file.state.items() if key in own and own[key].shape == tensor.shape}
    if not fitting:
        raise WeightsMismatch(f"{name}: not one of its {len(file.state)} weights fits {network.name}")
    network.load_state_dict(fitting, strict=False)
    for what, keys in (("left out", file.state.keys() - fitting.keys()), ("new", own.keys() - fitting.keys())):
        if keys:
            logger.info("%s: %d weights are %s: %s", name, len(keys), what, ", ".join(sorted(keys)))


def _pair(size: tuple[int, ...] | None) -> tuple[int, int]:
    height, width = size or DEFAULT_SIZE
    return (height, width)
