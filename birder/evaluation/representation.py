"""How good embeddings are without a classifier: whether they have collapsed, and whether like lies near like.

All functions take rows (N, D), a torch tensor on any device or an array, and refuse rows that have no direction: of
length zero (``directed`` finds them, to leave them out), or with values that are no numbers. ``diagnosis`` and
``neighbours`` are quick enough for every epoch.

Shapes: N pictures, D size of the embedding, K classes.
"""

from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from birder.errors import DataError

Rows: TypeAlias = Tensor | np.ndarray[Any, Any]

_TEMPERATURE = 0.07  # of the votes of neighbours: Wu et al. 2018, section 3.4
_SPREAD = 2.0  # t of the uniformity
_CHUNK = 2**22  # similarities in memory at a time, 16 MiB
_ENOUGH = 10_000  # pictures that tell the state of a network; the pairs of more would take minutes


def diagnosis(embeddings: Rows, other_views: Rows | None = None) -> dict[str, float]:
    """The numbers that show a collapse: ``rank``, ``deviation``, ``alignment``, ``uniformity``.

    Of more than 10,000 pictures so many are taken, evenly spaced: the pairs of all would take minutes.

    Args:
        embeddings: (N, D), of at least two pictures.
        other_views: (N, D), of another view of each picture; without it, there is no ``alignment``.

    Raises:
        DataError: Fewer than two rows, other views of another shape, or rows without a direction.
    """
    rows = _some(_finite(embeddings))
    result = {"rank": effective_rank(rows), "deviation": deviation(rows), "uniformity": uniformity(rows)}
    if other_views is not None:
        if other_views.shape != embeddings.shape:
            raise _unlike(embeddings, other_views)
        result["alignment"] = alignment(rows, _some(_finite(other_views)))
    return result


def directed(embeddings: Rows) -> Tensor:
    """Which embeddings have a direction, which is all that are not zero: (N,), bool.

    Raises:
        DataError: No rows, or values that are no numbers.
    """
    return (_finite(embeddings, least=1) != 0).any(dim=1)


def effective_rank(embeddings: Rows) -> float:
    """How many directions the embeddings use, 1 to min(N, D): exp of the entropy of the singular values.

    Paper: Roy and Vetterli 2007, https://doi.org/10.5281/zenodo.40627;
    as a measure of pretraining (RankMe), Garrido et al. 2022, https://arxiv.org/abs/2210.02885

    Raises:
        DataError: Fewer than two rows, all of them zero, or values that are no numbers.
    """
    rows = _finite(embeddings).cpu().double()  # not every device has float64
    largest = rows.abs().max()
    if largest == 0:
        raise DataError(
            "all embeddings are zero: the network has collapsed, or its weights are not what they should be"
        )
    rows = rows / largest
    # The eigenvalues of the smaller product are the squares of the singular values, and much quicker to have.
    product = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    values = torch.linalg.eigvalsh(product).clamp(min=0).sqrt()
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def deviation(embeddings: Rows) -> float:
    """How evenly the directions of the embeddings spread over all dimensions: 1 evenly, 0 for a single direction.

    The mean over the dimensions of the standard deviation of the rows at length one, times sqrt(D).

    Paper: Chen and He 2020 (SimSiam), section 4.1, https://arxiv.org/abs/2011.10566

    Raises:
        DataError: Fewer than two rows, or rows without a direction.
    """
    rows = _directions(embeddings)
    return float(rows.std(dim=0, correction=0).mean() * rows.shape[1] ** 0.5)


def alignment(embeddings: Rows, other_views: Rows) -> float:
    """How near two views of a picture lie, 0 (the same direction) to 4: the mean squared distance at length one.

    Paper: Wang and Isola 2020, https://arxiv.org/abs/2005.10242

    Args:
        embeddings: (N, D).
        other_views: (N, D), of another view of each picture.

    Raises:
        DataError: Fewer than two rows, other shapes, or rows without a direction.
    """
    one, other = _directions(embeddings), _directions(other_views)
    if one.shape != other.shape:
        raise _unlike(embeddings, other_views)
    return float((one - other).square().sum(dim=1).mean())


def uniformity(embeddings: Rows) -> float:
    """How evenly the embeddings cover the sphere: 0 when all are one, about -4 when evenly, never below -8.

    The logarithm of the mean over all pairs of pictures of exp(-2 |x - y|^2), at length one.

    Paper: Wang and Isola 2020, https://arxiv.org/abs/2005.10242

    Raises:
        DataError: Fewer than two rows, or rows without a direction.
    """
    rows = _directions(embeddings)
    total = 0.0
    for start, part in chunks(rows, len(rows)):
        squares = (2 - 2 * part @ rows.T).clamp(min=0)
        near = torch.exp(-_SPREAD * squares)
        near.diagonal(start).zero_()  # a picture and itself are no pair
        total += float(near.sum())
    return float(np.log(total / (len(rows) * (len(rows) - 1))))


def neighbours(embeddings: Rows, labels: Rows, k: int = 20) -> float:
    """The part of the pictures whose class their nearest neighbours in the same set name, 0-1: leave-one-out kNN.

    See ``nearest_class``; a class with a single picture counts, and is never named right.

    Args:
        embeddings: (N, D), of at least two pictures.
        labels: (N,), whole numbers from 0.
        k: How many neighbours vote; all others when there are fewer.

    Raises:
        DataError: Fewer than two rows, rows without a direction, labels that do not fit, or k below 1.
    """
    rows = _directions(embeddings)
    truth = _labels(labels, rows)
    return int((_voted(rows, truth, rows, k, leave_out=True) == truth).sum()) / len(rows)


def nearest_class(embeddings: Rows, labels: Rows, queries: Rows, k: int = 20) -> Tensor:
    """The classes that the nearest neighbours of some pictures among labelled ones vote for: weighted kNN.

    Neighbours are near by cosine, and vote with the weight exp(cosine / 0.07). Similarities are computed in parts, so
    that memory does not grow with the number of pictures.

    Paper: Wu et al. 2018, section 3.4, https://arxiv.org/abs/1805.01978
    Differs: k is 20 where the paper has 200, which small sets do not have for each class.

    Args:
        embeddings: (N, D), of the labelled pictures.
        labels: (N,), whole numbers from 0.
        queries: (M, D), of the pictures that are asked about.
        k: How many neighbours vote; all when there are fewer.

    Returns:
        (M,), int64, on the device of the embeddings.

    Raises:
        DataError: Rows without a direction or of another size, labels that do not fit, or k below 1.
    """
    rows, asked = _directions(embeddings, least=1), _directions(queries, least=1)
    if rows.shape[1] != asked.shape[1]:
        raise DataError(f"embeddings of {rows.shape[1]} and of {asked.shape[1]} dimensions cannot be compared")
    return _voted(rows, _labels(labels, rows), asked.to(rows.device), k)


def chunks(rows: Tensor, width: int) -> list[tuple[int, Tensor]]:
    """Rows (N, D) in parts, each with the number of its first row, so that part x width numbers take 16 MiB."""
    height = max(1, _CHUNK // width)
    return [(start, rows[start : start + height]) for start in range(0, len(rows), height)]


def _voted(rows: Tensor, labels: Tensor, queries: Tensor, k: int, *, leave_out: bool = False) -> Tensor:
    if k < 1:
        raise DataError(f"k must be 1 or more, not {k}")
    classes = int(labels.max()) + 1
    k = min(k, len(rows) - leave_out)
    voted = []
    for start, part in chunks(queries, max(len(rows), classes)):
        similarities = part @ rows.T
        if leave_out:
            similarities.diagonal(start).fill_(-torch.inf)
        nearest = similarities.topk(k, dim=1)
        votes = torch.zeros(len(part), classes, device=rows.device)
        votes.scatter_add_(1, labels[nearest.indices], torch.exp(nearest.values / _TEMPERATURE))
        voted.append(votes.argmax(dim=1))
    return torch.cat(voted)


def _some(rows: Tensor) -> Tensor:
    if len(rows) <= _ENOUGH:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, _ENOUGH, dtype=torch.float64).long().to(rows.device)]


def _directions(embeddings: Rows, *, least: int = 2) -> Tensor:
    """The rows at length one, float32."""
    rows = _finite(embeddings, least=least)
    rows = rows / rows.abs().amax(dim=1, keepdim=True)  # or the squares of large values would overflow
    if not rows.isfinite().all():
        zero = int((~rows.isfinite()).any(dim=1).sum())
        raise DataError(f"{zero} of {len(rows)} embeddings are zero and point nowhere: the network has collapsed")
    return F.normalize(rows)


def _finite(embeddings: Rows, *, least: int = 2) -> Tensor:
    rows = torch.as_tensor(embeddings).detach().float()
    if rows.ndim != 2 or len(rows) < least or rows.shape[1] == 0:
        raise DataError(f"embeddings must be (N, D), of {least} or more pictures, not {tuple(rows.shape)}")
    broken = int((~rows.isfinite()).any(dim=1).sum())
    if broken:
        raise DataError(
            f"{broken} of {len(rows)} embeddings have values that are infinite or no numbers: the weights of the "
            "network are damaged, or its training has gone astray"
        )
    return rows


def _labels(labels: Rows, rows: Tensor) -> Tensor:
    values = torch.as_tensor(labels).to(rows.device)
    if values.shape != (len(rows),) or values.is_floating_point() or int(values.min()) < 0:
        raise DataError(f"labels must be whole numbers from 0, one for each of the {len(rows)} embeddings")
    return values.long()


def _unlike(embeddings: Rows, other_views: Rows) -> DataError:
    return DataError(
        f"the views of the same pictures must have one shape, not {tuple(embeddings.shape)} and "
        f"{tuple(other_views.shape)}"
    )
