"""Feature maps as colours: what a network takes for alike in some pictures has the same colour in all of them.

Shapes: B pictures, D width of a map, h x w its positions, N rows of numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.errors import NotFinite
from birder.networks.base import Network

_LEAST_DEVIATION = 1e-6  # what varies less, as a share of what varies most, is rounding


@torch.no_grad()
def feature_colours(network: Network, images: Tensor) -> Tensor:
    """Colours of the network's last feature map, (B, C, H, W) -> (B, 3, h, w) in 0-1, on the CPU.

    The pictures are looked at together, so that their colours can be compared; those of another call cannot.

    Args:
        network: In evaluation mode.
        images: Pictures as the network takes them.

    Raises:
        NotFinite: A feature is no number.
    """
    features = list(network.detection_features(images).values())[-1]  # (B, D, h, w)
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)  # (B * h * w, D)
    if not rows.isfinite().all():
        raise NotFinite(f"features of {network.name} are no numbers; its weights may be damaged")
    colours = robust_share(principal_components(rows.cpu()))
    return colours.unflatten(0, (len(features), *features.shape[2:])).permute(0, 3, 1, 2).float()


def principal_components(rows: Tensor, count: int = 3) -> Tensor:
    """Where each row lies along the directions in which the rows vary most, (N, D) -> (N, count) in float64.

    A direction and its opposite are the same to the mathematics. Of the two it is the one whose largest number is
    positive, so that the same rows give the same result each time. Directions that the rows do not have give zeros.

    Paper: Pearson 1901, https://doi.org/10.1080/14786440109462720
    """
    rows = rows.double()
    left, lengths, directions = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    strongest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))  # (min(N, D), 1)
    lengths = torch.where(lengths > _LEAST_DEVIATION * lengths[0], lengths, 0.0)
    found = (left * lengths * strongest.sign().T)[:, :count]
    return F.pad(found, (0, count - found.shape[1]))


def robust_share(values: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Where each number lies between two quantiles of its column, (N, K) -> (N, K) in 0-1.

    A few extreme rows would otherwise leave all others nearly the same. What lies outside is cut off; a column without
    differences gives 0.5.

    Args:
        values: Columns of finite numbers.
        low: What becomes 0, as a share of the rows.
        high: What becomes 1.
    """
    rank = torch.tensor([low, high], dtype=values.dtype, device=values.device) * (len(values) - 1)
    ordered = values.sort(dim=0).values
    below, above = (ordered[places.long()] for places in (rank.floor(), rank.ceil()))
    first, last = torch.lerp(below, above, (rank - rank.floor()).unsqueeze(1))
    width = last - first
    return torch.where(width > 0, (values - first) / width.where(width > 0, 1.0), 0.5).clamp(0.0, 1.0)
