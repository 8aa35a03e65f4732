"""How good a network is between two epochs: at naming species, or, without labels, at telling pictures apart."""

import torch

from birder.data.augment import AugmentOptions, training_transform
from birder.data.loader import TrainingSet, looked_at
from birder.data.samples import Samples
from birder.data.thinning import evenly, thinned
from birder.data.transforms import InferenceTransform
from birder.distributed import said_by_primary
from birder.errors import DataError
from birder.evaluation.classification import evaluate
from birder.evaluation.representation import diagnosis, directed, neighbours
from birder.model_file import ModelInfo
from birder.networks import Network

BATCH_SIZE = 64
MOST_NEIGHBOURS = 5000
"""Pictures whose nearest neighbours are looked for, at most; see ``birder.data.thinning`` for a larger set."""
MOST_PAIRS = 1024
"""Pictures of which two variants are compared, at most; of a larger set they are evenly spaced."""


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
    """How the embeddings lie; computed by the first process for all. A collapse is shown, and is no error.

    ``dead`` is the share, 0-1, of some pictures whose embedding is zero in one of two variants, the same in every
    epoch. ``rank``, ``deviation``, ``alignment`` and ``uniformity`` are those of ``birder.evaluation.representation``,
    of the others. With labelled pictures, ``val_knn`` is the share of them, 0-1, that are named right after their
    nearest neighbours among the others; one with an embedding of zero is not. Where fewer than two embeddings are
    not zero, these five are left out.

    Args:
        network: The network, whole.
        transform: How pictures are shown without variation.
        augment: How they are varied.
        pictures: Those of the training.
        labelled: Those of the validation, if there are any; then these are compared in variants, too.
        workers: Processes that read pictures.

    Returns:
        The numbers; none when fewer than two of the training's pictures can be read.

    Raises:
        DataError: Fewer than two of the labelled pictures can be read, or embeddings are no numbers.
    """

    def answer() -> dict[str, float]:
        compared = labelled or pictures
        compared = compared.select(evenly(len(compared), MOST_PAIRS))
        varied = TrainingSet(compared, training_transform(transform.size, augment), seed=0)
        first, second = (_embedded(network, transform, varied, epoch, workers)[0] for epoch in (0, 1))
        if len(first) < 2:
            if labelled is not None:
                raise DataError(f"fewer than two of the {len(compared)} pictures of the validation can be read")
            return {}
        alive = directed(first) & directed(second)
        result = {"dead": 1 - int(alive.sum()) / len(alive)}
        if alive.sum() >= 2:
            result |= diagnosis(first[alive], second[alive])
        if labelled is not None:
            result |= _named_by_neighbours(network, transform, labelled, workers)
        return result

    return said_by_primary(answer)


def _named_by_neighbours(
    network: Network, transform: InferenceTransform, labelled: Samples, workers: int
) -> dict[str, float]:
    some = labelled.select(thinned(labelled.labels, MOST_NEIGHBOURS))
    rows, labels = _embedded(network, transform, TrainingSet(some, transform.pixels, seed=0), 0, workers)
    if len(rows) < 2:
        raise DataError(f"fewer than two of the {len(some)} pictures of the validation can be read")
    alive = directed(rows)
    if alive.sum() < 2:
        return {}
    # Zero rows count as named wrong: or the fewer were left, the better a collapsing network would look.
    return {"val_knn": neighbours(rows[alive], labels[alive]) * int(alive.sum()) / len(alive)}


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
        return torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
    return torch.cat(rows), torch.cat(labels)
