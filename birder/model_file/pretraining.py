"""Files of a pretraining: the network stands there beside a decoder, heads or a teacher, which are left out."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from birder.errors import ModelFileError

MASKED_IMAGES, SELF_SUPERVISED = "masked_image_modeling", "self_supervised_learning"
"""Tasks of such files."""

PREFIXES: dict[str, tuple[str, ...]] = {
    MASKED_IMAGES: ("encoder.",),
    SELF_SUPERVISED: (
        "ema_backbone.",  # data2vec
        "teacher.backbone.",  # DINO, iBOT, CAPI
        "online_encoder.backbone.",  # BYOL, before its target
        "target_encoder.backbone.",  # I-JEPA
        "encoder.backbone.",  # MMCR, before its momentum encoder
        "backbone.",  # SimCLR, VICReg, Barlow Twins
    ),
}
"""Task of a file to what the names of the network's weights begin with: the first that is there, so that it is what the
method learns, not what helps it."""

# Words of a configuration for the network that is pretrained.
_PARTS = ("encoder", "base_net")


def network_alone(state: Mapping[str, Tensor], task: str) -> tuple[dict[str, Tensor], str]:
    """The weights of the network under its own names, and what their names began with.

    Raises:
        ModelFileError: There are none.
    """
    for prefix in PREFIXES[task]:
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if own:
            return own, prefix
    expected = " or ".join(f"{prefix}*" for prefix in PREFIXES[task])
    raise ModelFileError(f"is a model for {task}, but holds no network to take out of it, under {expected}")


def without_classes(signature: Mapping[str, Any]) -> dict[str, Any]:
    """The signature of a network alone, whose outputs are none."""
    return {"inputs": signature.get("inputs"), "outputs": [{"data_shape": [0, 0]}]}


def configuration_of_network(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the configuration of a pretraining says about the network; any other configuration as it is.

    Raises:
        ModelFileError: It says nothing about it.
    """
    if content.get("task") not in PREFIXES:
        return content
    part = next((part for part in _PARTS if part in content), None)
    if part is None:
        raise ModelFileError(f"is for {content['task']}, and has no entry {' or '.join(_PARTS)} for the network")
    names = {"registered_name": "registered_name", "alias": "alias", "model_config": "config"}
    own = {name: content.get(f"{part}_{word}") for name, word in names.items()}
    signature = content.get("signature")
    return {
        **own,
        "name": content[part],
        "signature": without_classes(signature) if isinstance(signature, Mapping) else None,
    }
