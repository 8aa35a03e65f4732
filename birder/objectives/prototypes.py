"""Sorting pictures into kinds that nobody has named, as a slowly following teacher does: what DINO and iBOT share.

Papers: DINO, Caron et al. 2021, https://arxiv.org/abs/2104.14294; iBOT, Zhou et al. 2022,
https://arxiv.org/abs/2111.07832
Shapes: B pictures, V crops of each, the first T of them large, D size of an embedding, N points, P their width, K
kinds.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from birder.distributed import gathered
from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.configs import SelfSorting
from birder.objectives.teacher import cosine_between, linear_between
from birder.objectives.views import Followed


class Head(nn.Module):
    """From embeddings to points on a sphere, and from there to how near these are to the prototype of each kind.

    Attributes:
        last: One layer for each set of kinds; its rows are the prototypes, all of length 1.
    """

    def __init__(self, width: int, options: SelfSorting, *kinds: int) -> None:
        """Behind embeddings of size ``width``, for one set of kinds or more, each of so many."""
        super().__init__()
        self.mlp = nn.Sequential()
        widths = [width, *[options.hidden] * (options.head_depth - 1), options.bottleneck]
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            linear = nn.Linear(before, after)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            self.mlp.append(linear)
            if number < options.head_depth:
                self.mlp.extend([nn.BatchNorm1d(after)] if options.head_batch_norm else [])
                self.mlp.append(nn.GELU())
        self.last = nn.ModuleList(_prototypes(options.bottleneck, number) for number in kinds)

    def forward(self, x: Tensor) -> Tensor:
        """Points, (N, D) -> (N, P), of length 1."""
        return F.normalize(self.mlp(x), dim=1)

    def nearness(self, points: Tensor, which: int = 0, *, held: bool = False) -> Tensor:
        """Logits, (N, P) -> (N, K), each in -1 to 1.

        Args:
            points: Of length 1.
            which: Number of the set of kinds.
            held: Whether the prototypes shall learn nothing; then they get no gradient at all, so that no optimiser
                moves them.
        """
        prototypes = self.prototypes(which)
        return F.linear(points, prototypes.detach() if held else prototypes)

    def mean_nearness(self, points: Tensor, which: int = 0) -> Tensor:
        """Mean of the logits, (N, P) -> (K,), that of the mean point, without making N times K numbers."""
        return (self.prototypes(which) * points.mean(dim=0, dtype=torch.float32)).sum(dim=1)

    def prototypes(self, which: int = 0) -> Tensor:
        """(K, P), of length 1."""
        weight = self.last[which].weight
        assert isinstance(weight, Tensor)
        return weight


class Center(nn.Module):
    """A slowly following mean of the teacher's logits; without it, all pictures would end in one kind (DINO, 3.1).

    Attributes:
        value: (K,).
        total: (K,), the sum of the logits of this step so far.
        count: How many they are.
    """

    value: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, kinds: int, momentum: float) -> None:
        """At zero; ``momentum`` is how slowly it follows, 0 to 1."""
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(kinds))
        # Nothing is left of them between steps, so that they belong in no checkpoint.
        self.register_buffer("total", torch.zeros(kinds), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def judged(self, logits: Tensor, temperature: float) -> Tensor:
        """What the teacher says, as probabilities, (N, K) -> (N, K): the centre is taken away, the rest sharpened."""
        return ((logits.float() - self.value.float()) / temperature).softmax(dim=1)

    @torch.no_grad()
    def collect(self, mean: Tensor, count: int) -> None:
        """Remember the mean (K,) of so many logits until ``move``; a step may have several parts."""
        self.total += mean * count
        self.count += count

    @torch.no_grad()
    def move(self) -> None:
        """Follow the mean of the step in all processes, which all must call it."""
        sums = gathered(torch.cat([self.total, self.count[None]])[None]).sum(dim=0)
        total, count = sums[:-1], sums[-1]
        mean = total / count.clamp(min=1.0)
        self.value.lerp_(mean, (1.0 - self.momentum) * (count > 0).to(mean))  # a step may be without pictures
        self.total.zero_()
        self.count.zero_()


class Sorter(Followed):
    """A student that sorts pictures as its teacher does, which follows it and sees large crops only.

    Attributes:
        center: Of the teacher's logits.
    """

    reaches_all = False  # for the first share of the run, which leaves out the last layer

    head: Head
    teacher_head: Head

    def __init__(self, network: Network, config: SelfSorting, *kinds: int) -> None:
        """Train ``network``, which from now on takes pictures of any size, for one set of kinds or more.

        Raises:
            ConfigError: Small crops of a size that the network cannot take.
        """
        super().__init__(network, Head(network.embedding_size, config, *kinds))
        self.config = config
        self.center = Center(kinds[0], config.center_momentum)
        if config.small_views:
            try:
                network.checked_size((config.small_size, config.small_size))
            except ConfigError as error:
                raise ConfigError(f"small_size: {error}") from error
            network.set_dynamic_size()

    @property
    def result(self) -> Network:
        """The teacher, which the papers evaluate."""
        return self.teacher_network

    def judged(self, logits: Tensor) -> Tensor:
        """What the student says, as logarithms of probabilities, (N, K) -> (N, K)."""
        return (logits.float() / self.config.student_temperature).log_softmax(dim=1)

    def held(self, progress: float) -> bool:
        """Whether the last layer does not learn yet."""
        return progress < self.config.hold_last

    def momentum_at(self, progress: float) -> float:
        """On half a cosine."""
        return cosine_between(*self.config.momentum, progress)

    def after_step(self, progress: float) -> None:
        """The teacher follows the student, and the centre follows the teacher."""
        super().after_step(progress)
        self.center.move()


def alike(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of each large crop at the teacher and each other crop at the student, mean over these pairs and B.

    Args:
        student: (V, B, K), logarithms of probabilities; the first T crops are those of the teacher.
        teacher: (T, B, K), probabilities.
    """
    large, pictures = teacher.shape[:2]
    pairs = large * (len(student) - 1)
    # The sum over all pairs is one product of two sums; that over the pairs of a crop with itself comes off it.
    every = (teacher.sum(dim=0) * student.sum(dim=0)).sum()
    same = (teacher * student[:large]).sum()
    return (same - every) / (pairs * pictures)


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy, (..., K) -> scalar: 0 where one kind takes all, log K where nothing tells kinds apart."""
    return torch.special.entr(probabilities).sum(dim=-1).mean()


def temperature(limits: tuple[float, float], progress: float, warmup: float, start: float = 0.0) -> float:
    """From the first to the second on a line, and then the second.

    Args:
        limits: The two.
        progress: Share of the run that is over, in [0, 1].
        warmup: Share of the run that the way takes.
        start: Share of the run before it begins.
    """
    if progress >= start + warmup:
        return limits[1]
    return linear_between(*limits, max(progress - start, 0.0) / warmup)


def crop_by_crop(images: Tensor) -> Tensor:
    """(B, V, C, H, W) -> (V * B, C, H, W), first the first crop of every picture."""
    return images.transpose(0, 1).flatten(0, 1)


def _prototypes(width: int, count: int) -> nn.Module:
    """A layer whose rows have length 1, which is better than to learn it (DINO, appendix)."""
    layer = weight_norm(nn.Linear(width, count, bias=False))
    length = layer.get_parameter("parametrizations.weight.original0").requires_grad_(False)
    nn.init.ones_(length)
    return layer
