"""What a network looked at, as a few numbers that the browser lays over a picture."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from birder.data.samples import Samples
from birder.data.transforms import classification_transform
from birder.errors import ImageError
from birder.explain import explain
from birder.inference.classification import Floats
from birder.report.sources import Model

GRID = 28
"""Rows and columns; the feature maps that it comes from have fewer."""


def looked_at(model: Model, samples: Samples, pictures: Sequence[int]) -> dict[str, Any]:
    """For each picture (GRID, GRID) numbers as bytes, row by row, 255 where most was seen; see ``birder.explain``.

    Networks squeeze a picture to their size, and cut nothing off; so the numbers are about all of it.

    Args:
        model: It is asked about its own best class.
        samples: Where the pictures are.
        pictures: Their numbers.

    Returns:
        The ``method``, the size of the ``grid``, and ``heat``: base64 of the bytes, empty if a picture cannot be read.
    """
    transform = classification_transform(model.network.size, model.info.rgb_stats)
    device = next(model.network.parameters()).device
    heat, method = [], ""
    for picture in pictures:
        try:
            image = transform(samples.read(picture)).to(device)
        except ImageError:
            heat.append("")
            continue
        found = explain(model.network, image)
        method = found.method
        heat.append(base64.b64encode(_small(found.heat)).decode())
    return {"method": method, "grid": GRID, "heat": heat}


def _small(heat: Floats) -> bytes:
    image = Image.fromarray(np.asarray(heat, np.float32))
    grid = np.asarray(image.resize((GRID, GRID), Image.Resampling.BILINEAR))
    return np.rint(255 * grid.clip(0, 1)).astype(np.uint8).tobytes()
