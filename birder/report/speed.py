"""How large a model is, and how fast on this machine."""

from typing import Any

import torch

from birder.inference import ready
from birder.inference.backends.gate import golden_pictures
from birder.inference.backends.probing import pictures_per_second
from birder.inference.options import Work
from birder.report.sources import Model


def size(model: Model) -> dict[str, Any]:
    """What the network is."""
    return {
        "network": model.network.name,
        "height": model.network.size[0],
        "width": model.network.size[1],
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "file_bytes": model.path.stat().st_size,
    }


def speed(model: Model, device: torch.device | str) -> dict[str, Any]:
    """What computes fastest here, as ``birder predict`` chooses it, and how long it takes, on drawn birds.

    Times are from pixels to answers, without reading pictures; others who use the machine meanwhile make them longer.
    """
    chosen = ready.Model(model.path, network=model.named).ready(Work(device=str(device))).chosen
    backend = chosen.backend
    pictures = golden_pictures(model.network.size, backend.batch_size)
    (per_second,) = pictures_per_second([backend], pictures)
    (alone,) = pictures_per_second([backend], pictures[:1])
    return {
        "backend": str(chosen.way),
        "chosen": chosen.sentence,
        "device": chosen.settings["device"],
        "batch": backend.batch_size,
        "per_second": per_second,
        "one_ms": 1000 / alone,
    }
