"""What a model can name."""

from collections.abc import Mapping
from typing import Protocol

from birder.errors import ConfigError, ModelFileError


class Classifier(Protocol):
    """A network, or what is known of one."""

    @property
    def num_classes(self) -> int:
        """Classes, 0 without classifier."""
        ...

    @property
    def input_channels(self) -> int:
        """Channels of its pictures."""
        ...


def check_classifier(model: Classifier) -> None:
    """Accept a network that names what is in ordinary pictures.

    Raises:
        ModelFileError: It has no classifier.
        ConfigError: It does not take RGB.
    """
    if model.num_classes == 0:
        raise ModelFileError("the model has no classifier: it gives embeddings, no species")
    if model.input_channels != 3:
        raise ConfigError(f"pictures have 3 channels, this network takes {model.input_channels}")


def class_names(model: Classifier, class_to_idx: Mapping[str, int]) -> list[str]:
    """The names of the network's classes, in the order of their labels.

    Args:
        model: The network.
        class_to_idx: Label of each class name, from the model file.

    Raises:
        ModelFileError: The model file does not name each class of the network once.
    """
    names = sorted(class_to_idx, key=class_to_idx.__getitem__)
    if [class_to_idx[name] for name in names] != list(range(model.num_classes)):
        raise ModelFileError(f"the model names {len(names)} classes, but its network tells {model.num_classes} apart")
    return names
