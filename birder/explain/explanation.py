"""One answer of a network, explained: how much each part of the picture speaks for it.

What is explained is the logit of a class. The network stays as it is: its mode, its weights, their gradients and
whether they have any; the hooks that look into it are gone when an explanation is there.

Shapes: C channels, H height, W width, h rows and w columns of the map that is looked at.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from birder.errors import ConfigError, NotFinite
from birder.explain.grad_cam import grad_cam, stage_names
from birder.explain.grid import enlarged, grid_of
from birder.explain.rollout import attentions, rollout
from birder.inference.classification import evaluation_mode
from birder.networks.base import Network

Heat: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Method: TypeAlias = Literal["auto", "grad-cam", "rollout"]

_LEAST_CONTRAST = 1e-4  # what varies less, as a share of the largest value, is rounding


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What speaks for one answer, place by place."""

    heat: Heat
    """(H, W) of the pixels that the network saw, from 0 (nothing) to 1 (most); all zeros if no place tells more than
    another."""
    label: int
    """The class whose logit is explained."""
    method: Literal["grad-cam", "rollout"]
    """How it was found."""


def explain(
    network: Network, image: Tensor, *, label: int | None = None, method: Method = "auto", stage: str | None = None
) -> Explanation:
    """Explain an answer to one picture; the same picture gives the same explanation each time.

    No other thread may use the network meanwhile.

    Args:
        network: One with a classifier, in either mode; it is explained as it answers in evaluation mode.
        image: (C, H, W), as its transform gives it.
        label: The class to explain; None is the one that the network answers.
        method: ``grad-cam`` (see ``grad_cam``), for every network; ``rollout`` (see ``rollout``), for those whose
            blocks all attend to the same tokens; ``auto`` is ``rollout`` where there is such attention.
        stage: With ``grad-cam``, the map to look at, one of ``network.stages``; None is the last.

    Raises:
        ConfigError: No classifier, no such class, a picture of a wrong shape, or a method or stage that the network
            does not have.
        NotFinite: The answer is no number.
    """
    label = _checked(network, image, label)
    found = chosen_method(network, method, stage)
    like = next(network.parameters())
    with torch.inference_mode(False), evaluation_mode(network):
        pixels = image.detach().to(like.device, like.dtype, copy=True).unsqueeze(0)
        if label is None:
            with torch.no_grad():
                label = int(network(pixels)[0].argmax())
        with torch.enable_grad():
            evidence = (
                rollout(network, pixels, label) if found == "rollout" else grad_cam(network, pixels, label, stage)
            )
    if not evidence.isfinite().all():
        raise NotFinite(f"the answer of {network.name} is no number, and so has no reasons; its weights may be damaged")
    grid = grid_of(network, stage)
    heat = _spread(enlarged(evidence.cpu().double(), grid, (image.shape[1], image.shape[2])))
    return Explanation(heat=heat.float().numpy(), label=label, method=found)


def _checked(network: Network, image: Tensor, label: int | None) -> int | None:
    """The label, once it and the picture are such that there is something to explain."""
    if network.num_classes == 0:
        raise ConfigError(f"{network.name} has no classifier, and so gives no answer to explain")
    if image.ndim != 3 or image.shape[0] != network.input_channels:
        raise ConfigError(
            f"image must be one picture, ({network.input_channels}, height, width), not {tuple(image.shape)}"
        )
    if label is not None and not 0 <= label < network.num_classes:
        raise ConfigError(f"label must be 0 to {network.num_classes - 1}, the classes of {network.name}, not {label}")
    return label


def chosen_method(network: Network, method: Method, stage: str | None = None) -> Literal["grad-cam", "rollout"]:
    """How a network is explained that is asked for in this way; see ``explain``.

    Raises:
        ConfigError: It does not have this method or stage.
    """
    attends = bool(attentions(network))
    if method not in ("auto", "grad-cam", "rollout"):
        raise ConfigError(f"method must be auto, grad-cam or rollout, not {method!r}")
    if method == "rollout" and not attends:
        raise ConfigError(
            f"rollout follows the attention of all blocks among the same tokens, which {network.name} "
            "does not have: take grad-cam"
        )
    if stage is not None and (method == "rollout" or stage not in stage_names(network)):
        stages = ", ".join(stage_names(network)) or "no stages to choose from"
        raise ConfigError(f"stage is for grad-cam, and {network.name} has {stages}; not {stage!r}")
    if method != "auto":
        return method
    return "rollout" if attends and stage is None else "grad-cam"


def _spread(evidence: Tensor) -> Tensor:
    """From the least to the most is 0 to 1; zeros if there is no more to it than rounding."""
    least, most = evidence.aminmax()
    if most - least <= _LEAST_CONTRAST * torch.maximum(most.abs(), least.abs()):
        return torch.zeros_like(evidence)
    return (evidence - least) / (most - least)
