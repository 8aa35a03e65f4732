"""A map on which pictures that look alike to the network lie near each other.

Shapes: N pictures that the source has an answer to, D size of the embedding, S pictures on the map.
"""

import importlib.util
import warnings
from typing import Any

import numpy as np
import torch

from birder.errors import need
from birder.evaluation.classification import Halves
from birder.evaluation.feature_map import principal_components

MOST = 1_500
"""Pictures on the map, each with a thumbnail."""


def projected(embeddings: Halves) -> dict[str, Any]:
    """Where pictures lie, by UMAP if it is installed, otherwise along the two directions in which they vary most.

    Embeddings are compared by their direction, as nearest neighbours are. The result is the same each time.

    Papers: McInnes, Healy and Melville 2018, https://arxiv.org/abs/1802.03426; Pearson 1901,
    https://doi.org/10.1080/14786440109462720

    Args:
        embeddings: (S, D).
    """
    rows = embeddings.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if importlib.util.find_spec("umap") is not None and len(rows) > 15:
        return {"method": "UMAP", "share": None, **_axes(_umap(rows))}
    places = principal_components(torch.from_numpy(rows), 2).numpy()
    total = np.square(rows - rows.mean(axis=0)).sum()
    share = float(np.square(places).sum() / total) if total else 1.0
    return {"method": "PCA", "share": share, **_axes(places)}


def _umap(rows: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no TensorFlow, and that a seed leaves it one thread
        umap = need("umap", extra="umap", purpose="a map of embeddings by UMAP")
        return umap.UMAP(n_components=2, metric="cosine", random_state=0).fit_transform(rows)


def _axes(places: Any) -> dict[str, list[float]]:
    """Both axes from 0 on, on the same scale; the longer one reaches 1."""
    low, high = places.min(axis=0), places.max(axis=0)
    shares = (places - low) / max(float((high - low).max()), 1e-12)
    return {"x": shares[:, 0].round(4).tolist(), "y": shares[:, 1].round(4).tolist()}
