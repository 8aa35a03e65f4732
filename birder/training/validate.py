"""How good a network is between two epochs: at naming species, or, without labels, at telling pictures apart."""

import numpy as np
import torch

from birder.data.augment import AugmentOptions, training_transform
from birder.data.loader import TrainingSet, looked_at
from birder.data.samples import Samples
from birder.data.transforms import InferenceTransform
from birder.distributed import said_by_primary
from birder.errors import DataError
from birder.evaluation.classification import evaluate
from birder.evaluation.representation import diagnosis, neighbours
from birder.model_file import ModelInfo
from birder.networks import Network

BATCH_SIZE = 64
MOST_NEIGHBOURS = 5000
"""Pictures whose nearest neighbours are looked for, at most; a larger set is thinned out evenly."""
MOST_PAIRS = 1024
"""Pictures of which two variants are compared, at most."""


def named(network: Network, info: ModelInfo, samples: Samples, *, workers: int) -> dict[str, float]:
    """How well species are named: ``val_top1``, ``val_top3``, ``val_macro_f1``, 0-1. All processes call it at once."""
    result = evaluate(network, info, samples, batch_size=BATCH_SIZE, workers=workers, together=True)
    return {"val_top1": result.top1, "val_top3": result.top3, "val_macro_f1": result.macro_f1}


def represented(
    network: Network,
    transform: InferenceTransform,
    augment: AugmentOptions,
    *,
    pictures: Samples,
    labelled: Samples | None,
    workers: int,
) -> dict[str, float]:
    """How the embeddings lie; computed by the first process for all.

    ``rank``, ``deviation``, ``alignment`` and ``uniformity`` are those of ``birder.evaluation.representation``, of some
    pictures in two variants, the same in every epoch. With labelled pictures, ``val_knn`` is the share of them, 0-1,
    that are named right after their nearest neighbours among the others.

    Args:
        network: The network, whole.
        transform: How pictures are shown without variation.
        augment: How they are varied.
        pictures: Those of the training.
        labelled: Those of the validation, if there are any; then these are compared in variants, too.
        workers: Processes that read pictures.

    Raises:
        DataError: Fewer than two of the pictures can be read, or the network has collapsed.
    """

    def answer() -> dict[str, float]:
        compared = _thinned(labelled or pictures, MOST_PAIRS)
        varied = TrainingSet(compared, training_transform(transform.size, augment), seed=0)
        first, second = (_embedded(network, transform, varied, epoch, workers)[0] for epoch in (0, 1))
        result = diagnosis(first, second)
        if labelled is not None:
            plain = TrainingSet(_thinned(labelled, MOST_NEIGHBOURS), transform.pixels, seed=0)
            result["val_knn"] = neighbours(*_embedded(network, transform, plain, 0, workers))
        return result

    return said_by_primary(answer)


def _thinned(samples: Samples, most: int) -> Samples:
    return samples.select(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(np.int64))


@torch.inference_mode()
def _embedded(
    network: Network, transform: InferenceTransform, samples: TrainingSet, epoch: int, workers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings of the pictures that can be read, as they look in an epoch, and their labels."""
    training, device = network.training, next(network.parameters()).device
    network.eval()
    rows, labels = [], []
    for pictures in looked_at(samples, range(len(samples)), epoch=epoch, batch_size=BATCH_SIZE, workers=workers):
        if len(pictures.labels):
            assert isinstance(pictures.images, torch.Tensor)
            rows.append(network.embedding(transform.normalize(pictures.images.to(device))).float().cpu())
            labels.append(pictures.labels)
    network.train(training)
    if not rows:
        raise DataError(f"none of the {len(samples)} pictures can be read")
    return torch.cat(rows), torch.cat(labels)
