"""Objectives that draw what is hidden of a picture."""

from collections.abc import Callable, Mapping
from typing import Any

from conformance import NotCovered  # of the checker
from torch import Tensor, nn

from birder.networks import Network
from birder.objectives.configs import FCMAEConfig, MAEConfig, SimMIMConfig
from birder.objectives.fcmae import FCMAE
from birder.objectives.mae import MAE
from birder.objectives.pixels import PixelObjective
from birder.objectives.simmim import SimMIM

Names = Callable[[str], str]


def mim(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> tuple[nn.Module, Any, Tensor, Any]:
    """With the recorded mask."""
    options = spec.get("config") or {}
    ratio = {"mask_ratio": spec["mask_ratio"]} if "mask_ratio" in spec else {}
    objective, names = masked_image_objective(spec["network"], tools.network(), options, **ratio)
    tools.fill(objective, names)
    outputs = masked_image_outputs(objective, tools.images(2, 12345), tools.array("mask").bool())
    return objective, names, outputs["loss"], {"pred": outputs["pred"]}


def masked_image_objective(
    name: str, network: Network, options: Mapping[str, Any], **own: float
) -> tuple[PixelObjective, Names]:
    """The objective of a recorded name, and what gives the recorded names of its weights."""
    kind, *variants = name.removeprefix("mae_vit").split("_")
    if name.startswith("mae_vit"):
        config = MAEConfig(
            decoder_depth=options.get("decoder_depth", 8),
            decoder_width=options.get("decoder_embed_dim", 512),
            normalized_targets="npl" in variants,
            learned_positions="lpe" in variants,
            **own,
        )
        return MAE(network, config), renamed({"embed.": "decoder_embed.", "positions": "decoder_pos_embed"})
    if kind == "fcmae":
        fcmae = FCMAE(network, FCMAEConfig(**own))
        return fcmae, renamed({"embed.": "proj.", "decoder.": "decoder.0.", "pixels.": "pred."})
    if kind == "simmim":
        return SimMIM(network, SimMIMConfig(**own)), renamed({})
    raise NotCovered(name)


def masked_image_outputs(objective: PixelObjective, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Patches are recorded as a map, but for MAE."""
    drawn = objective.draw(images, mask)
    pred = drawn if isinstance(objective, MAE) else drawn.transpose(1, 2).unflatten(2, objective.grid)
    return {"loss": objective.error(drawn, images, mask), "pred": pred}


def renamed(prefixes: Mapping[str, str]) -> Names:
    """From our names to the recorded ones."""

    def name(key: str) -> str:
        for prefix, recorded in {"network.": "encoder.", **prefixes}.items():
            if key.startswith(prefix):
                return recorded + key.removeprefix(prefix)
        return key

    return name
