"""How large a model is, and how fast on this machine."""

from typing import Any

import torch

from birder.hub import checksum
from birder.inference.backends.choice import choose, pictures_per_second
from birder.inference.backends.gate import golden_pictures
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

    Times are of the network alone, without reading pictures; others who use the machine meanwhile make them longer.
    """
    chosen = choose(model.network, model.info.rgb_stats, model_digest=checksum.sha256(model.path), device=device)
    backend = chosen.backend
    images = golden_pictures(model.network.size, model.info.rgb_stats, backend.batch_size)
    return {
        "backend": str(chosen.way),
        "chosen": chosen.sentence,
        "device": backend.device.type,
        "batch": backend.batch_size,
        "per_second": pictures_per_second(backend, images),
        "one_ms": 1000 / pictures_per_second(backend, images[:1]),
    }
