"""Classification: cross-entropy or its binary form on labelled pictures, with smoothing, mixing, and long tails.

Papers: label smoothing, Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; mixup, Zhang et al. 2017,
https://arxiv.org/abs/1710.09412; CutMix, Yun et al. 2019, https://arxiv.org/abs/1905.04899; binary cross-entropy,
Wightman et al. 2021, https://arxiv.org/abs/2110.00476, section 4.2; effective numbers, Cui et al. 2019,
https://arxiv.org/abs/1901.05555; logit adjustment, Menon et al. 2020, https://arxiv.org/abs/2007.07314
Shapes: B images, N classes. Targets are (B, N), the shares of the labels in each picture, which sum to 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, objectives
from birder.objectives.configs import ClassificationConfig, LabelOptions


@objectives.register(classification=ClassificationConfig)
class Classification(Objective):
    """Learn the species from labelled pictures."""

    takes = ("class_counts",)

    def __init__(
        self, network: Network, config: ClassificationConfig, *, class_counts: Sequence[int] | None = None
    ) -> None:
        """Train ``network``; class weights and logit adjustment need the number of pictures of each class.

        Raises:
            ConfigError: The network has no classifier, or the counts are missing or do not fit.
        """
        super().__init__()
        self.network = network
        self.config = config
        self.labels = LabelLoss(network, config, class_counts)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, and ``accuracy`` against the label (of the larger part, where pictures are mixed)."""
        images, targets = self.labels.mixed(batch)
        logits = self.network(images).float()  # (B, N)
        return {"loss": self.labels(logits, targets), "accuracy": accuracy(logits, targets)}


class LabelLoss(nn.Module):
    """How logits are judged by labels, and in training the mixing of pictures that have several; nothing in it learns.

    Attributes:
        weights: (N,), of the classes; None for all alike.
        margins: (N,), added to the logits in training; None for none.
    """

    weights: Tensor | None
    margins: Tensor | None

    def __init__(self, network: Network, options: LabelOptions, class_counts: Sequence[int] | None) -> None:
        """For the classes of ``network``.

        Args:
            network: Whose logits are judged.
            options: The choices.
            class_counts: Number of training pictures of each class; may be None where no option asks for it. A class
                without pictures counts as if it had one.

        Raises:
            ConfigError: The network has no classifier, or the counts are missing or do not fit.
        """
        super().__init__()
        if not network.num_classes:
            raise ConfigError("labels can be learned by a network with classes only: give num_classes, 1 or more")
        self.options = options
        self.num_classes = network.num_classes
        weights = margins = None
        if options.class_weights != "none":
            beta = options.effective_beta if options.class_weights == "effective" else None
            weights = class_weights(self._checked("class_weights", class_counts), beta).float()
        if options.logit_adjustment:
            counts = self._checked("logit_adjustment", class_counts)
            margins = options.logit_adjustment * log_shares(counts).float()
        # They come from the data each time, and belong in no checkpoint.
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("margins", margins, persistent=False)

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pictures and targets, mixed in training if that is asked for."""
        images, targets = batch.images, F.one_hot(batch.labels, self.num_classes).float()  # (B, N)
        choices = ((mixup, self.options.mixup), (cutmix, self.options.cutmix))
        methods = [(mix, alpha) for mix, alpha in choices if alpha > 0.0]
        if not self.training or not methods or float(torch.rand(())) >= self.options.mix_probability:
            return images, targets
        mix, alpha = methods[int(torch.randint(len(methods), ()))]
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        return mix(images, targets, share)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, N) logits and targets -> the mean loss of a picture."""
        if self.margins is not None and self.training:
            logits = logits + self.margins
        if self.options.loss == "cross_entropy":
            return cross_entropy(logits, targets, smoothing=self.options.smoothing, weights=self.weights)
        return binary_cross_entropy(
            logits,
            targets,
            smoothing=self.options.smoothing,
            threshold=self.options.bce_threshold,
            summed=self.options.bce_sum,
            weights=self.weights,
        )

    def _checked(self, option: str, class_counts: Sequence[int] | None) -> Tensor:
        counts = torch.tensor([] if class_counts is None else class_counts, dtype=torch.float64)
        if len(counts) != self.num_classes or bool((counts < 0).any()):
            given = "none" if class_counts is None else f"{len(counts)}, the least {min(class_counts, default=0)}"
            raise ConfigError(
                f"{option}: needs class_counts, the number of training pictures of each of the {self.num_classes} "
                f"classes; there are {given}"
            )
        return counts


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Mean over the pictures of the cross-entropy of targets and softmax, (B, N) each -> scalar.

    Differs: torch's own weights, put on smoothed targets, would put those of the rarest classes on every picture, and
        it divides by the sum of the weights in the batch. Here the share of each label is weighted, then smoothed, and
        the sum divided by B, so that the parts of a batch add up to the whole.

    Args:
        logits: Of all classes.
        targets: Shares of the labels.
        smoothing: Share of the target that is spread evenly.
        weights: (N,), of the labels.
    """
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    targets = targets * weights
    return F.cross_entropy(logits, targets.lerp(targets.mean(dim=1, keepdim=True), smoothing))


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    threshold: float | None = None,
    summed: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over the pictures of the binary cross-entropies of targets and sigmoid, (B, N) each -> scalar.

    Args:
        logits: Of all classes.
        targets: Shares of the labels.
        smoothing: Share of the targets that is spread evenly.
        threshold: Shares above it become 1, others 0, before smoothing; None leaves them.
        summed: Sum over the classes, in place of the mean.
        weights: (N,), of the labels; a picture has the mean of its labels' weights.
    """
    hard = targets if threshold is None else (targets > threshold).to(targets.dtype)
    smooth = hard * (1.0 - smoothing) + smoothing / targets.shape[1]
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")  # (B, N)
    per_picture = losses.sum(dim=1) if summed else losses.mean(dim=1)
    return (per_picture if weights is None else per_picture * (targets * weights).sum(dim=1)).mean()


def class_weights(counts: Tensor, beta: float | None = None) -> Tensor:
    """Weights inverse to the number of pictures of each class, or to its effective number, (N,) -> (N,), float64.

    The effective number of n pictures is (1 - beta^n) / (1 - beta); it is n at beta 1, which None stands for.

    Differs: Cui et al. let the weights sum to N. Here their mean over the training pictures is 1, so that the loss, and
        with it the learning rate, keeps its scale however long the tail is.
    """
    counts = counts.double()
    seen = counts.clamp(min=1.0)
    effective = seen if beta is None else (1.0 - beta**seen) / (1.0 - beta)
    weights = 1.0 / effective
    return weights * (seen.sum() / (seen * weights).sum())


def log_shares(counts: Tensor) -> Tensor:
    """Logarithm of the share of each class in the training pictures, (N,) -> (N,), float64."""
    seen = counts.double().clamp(min=1.0)
    return (seen / seen.sum()).log()


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of the pictures whose largest logit is that of the largest target."""
    return (logits.argmax(dim=1) == targets.argmax(dim=1)).float().mean()


def mixup(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Blend each picture with its neighbour in the batch, keeping ``share`` of it; targets likewise."""
    return images.lerp(images.roll(1, 0), 1.0 - share), targets.lerp(targets.roll(1, 0), 1.0 - share)


def cutmix(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Keep about ``share`` of each picture and fill a rectangle from its neighbour in the batch.

    Targets are blended by the area that was really filled, which the picture's edges may cut.
    """
    height, width = images.shape[-2:]
    side = (1.0 - share) ** 0.5
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(y - int(side * height) // 2, 0), min(y + int(side * height) // 2, height)
    left, right = max(x - int(side * width) // 2, 0), min(x + int(side * width) // 2, width)
    images = images.clone()
    images[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    filled = (bottom - top) * (right - left) / (height * width)
    return images, targets.lerp(targets.roll(1, 0), filled)
