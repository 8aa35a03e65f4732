"""Distillation: learn from labels, and from what a trained network thinks of the same pictures.

Papers: Hinton et al. 2015, https://arxiv.org/abs/1503.02531 (soft); Touvron et al. 2020,
https://arxiv.org/abs/2012.12877, section 4 (hard, and with a second head); Beyer et al. 2021,
https://arxiv.org/abs/2106.05237, for showing the teacher the very pictures, mixed ones too, that the student sees
Shapes: B images, C channels, H height, W width, N classes, D size of an embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, check_ability, objectives
from birder.objectives.classification import LabelLoss, accuracy
from birder.objectives.configs import DistillationConfig
from birder.objectives.teacher import Teacher
from birder.signature import RGBStats

_MOST_NAMES = 10
"""Classes that a message names."""


@runtime_checkable
class HasDistillationHead(Protocol):
    """A network with a second classifier, which learns from the teacher; the first learns from labels (DeiT)."""

    def classify_twice(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, C, H, W) to the logits of both classifiers, (B, N) each; ``forward`` gives their mean."""
        ...


@objectives.register(distillation=DistillationConfig)
class Distillation(Objective):
    """Learn the species from labels and from a teacher, each with its share in the loss.

    The teacher gets no gradients and stays in evaluation mode. It is no part of the state and of the parameters, but
    moves along to other devices and types.

    Attributes:
        projection: From the student's embedding to one of the teacher's size; learned, and thrown away.
        columns: (N,), the teacher's label of each label.
        colours: (4, C, 1, 1), mean and deviation of the student's pictures, and of the teacher's.
    """

    columns: Tensor
    colours: Tensor

    takes = ("class_counts", "class_to_idx", "rgb_stats", "teacher")

    def __init__(
        self,
        network: Network,
        config: DistillationConfig,
        *,
        teacher: Teacher,
        class_to_idx: Mapping[str, int],
        rgb_stats: RGBStats,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        """Train ``network`` on pictures that are normalised with ``rgb_stats``.

        Raises:
            ConfigError: The teacher does not know all classes, takes pictures of other channels, or the network lacks
                what ``config`` asks for.
        """
        super().__init__()
        if config.kind == "deit":
            check_ability(
                network,
                HasDistillationHead,
                needed_by="distillation of the kind deit",
                ability="learn from a teacher with a head of its own",
                otherwise="take the kind hard, which lets one head learn both, or soft or embedding",
            )
        if teacher.network.input_channels != network.input_channels:
            raise ConfigError(
                f"the teacher takes pictures of {teacher.network.input_channels} channels, and {network.name} of "
                f"{network.input_channels}: they must be the same"
            )
        self.network = network
        self.config = config
        self.labels = LabelLoss(network, config, class_counts)
        self.projection: nn.Module = nn.Identity()
        columns = torch.empty(0, dtype=torch.int64)
        if config.kind != "embedding":
            columns = _columns(class_to_idx, teacher.class_to_idx)
        elif teacher.network.embedding_size != network.embedding_size:
            self.projection = nn.Linear(network.embedding_size, teacher.network.embedding_size)
        # What comes from the teacher's file and the data each time belongs in no checkpoint.
        self.register_buffer("columns", columns, persistent=False)
        colours = [stats[kind] for stats in (rgb_stats, teacher.rgb_stats) for kind in ("mean", "std")]
        self.register_buffer("colours", torch.tensor(colours)[..., None, None], persistent=False)
        self._same_colours = torch.equal(self.colours[:2], self.colours[2:])
        # In a tuple, where torch does not take it for a part of this module.
        self._teacher = (teacher.network.eval().requires_grad_(False),)

    @property
    def teacher(self) -> Network:
        """The network that is learned from."""
        return self._teacher[0]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, its parts ``label_loss`` and ``teacher_loss``, and ``accuracy`` against the labels."""
        images, targets = self.labels.mixed(batch)
        logits, teacher_loss = self._learned(images)
        label_loss = self.labels(logits, targets)
        return {
            "loss": label_loss.lerp(teacher_loss, self.config.weight),
            "label_loss": label_loss,
            "teacher_loss": teacher_loss,
            "accuracy": accuracy(logits, targets),
        }

    def for_teacher(self, images: Tensor) -> Tensor:
        """Pictures as the teacher wants them, (B, C, H, W) -> (B, C, H', W'): its colours, and its size."""
        size = self.teacher.size
        same_size = tuple(images.shape[2:]) == size
        if same_size and self._same_colours:
            return images
        mean, std, teacher_mean, teacher_std = self.colours
        pixels = images * std + mean
        if not same_size:
            # As in inference, where Pillow resizes and cuts off what overshoots.
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return (pixels - teacher_mean) / teacher_std

    def _learned(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits that labels are learned with, and the loss against the teacher."""
        with torch.no_grad():
            shown = self.for_teacher(images)
            if self.config.kind == "embedding":
                answer = self.teacher.embedding(shown).float()  # (B, D)
            else:
                answer = self.teacher(shown).float()[:, self.columns]  # (B, N)
        if self.config.kind == "embedding":
            embedding = self.network.embedding(images)
            logits = self.network.classify(embedding).float()
            return logits, embedding_loss(self.projection(embedding).float(), answer)
        if self.config.kind == "deit":
            assert isinstance(self.network, HasDistillationHead)
            logits, second = self.network.classify_twice(images)
            return logits.float(), hard_loss(second.float(), answer)
        logits = self.network(images).float()
        if self.config.kind == "hard":
            return logits, hard_loss(logits, answer)
        return logits, soft_loss(logits, answer, self.config.temperature)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """What ``to`` and its kin do, to the teacher as well."""
        super()._apply(fn, recurse)
        self.teacher._apply(fn, recurse)
        return self


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened probabilities, mean over the pictures; (B, N) logits -> scalar.

    Times the square of the temperature, so that its gradients keep their scale (Hinton et al., section 2).
    """
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the teacher's first choice as the label, without smoothing; (B, N) logits -> scalar."""
    return F.cross_entropy(student, teacher.argmax(dim=1))


def embedding_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of the angle between the embeddings, mean over the pictures; (B, D) each -> scalar.

    The scale of an embedding says little, and differs between networks; the cosine leaves it free. The squared
    difference of layer-normed embeddings would be much the same, 2 D times it but for the means.
    """
    return 1.0 - F.cosine_similarity(student, teacher, dim=1).mean()


def _columns(own: Mapping[str, int], teacher: Mapping[str, int]) -> Tensor:
    """The teacher's label of each of the student's labels, (N,); the teacher may know more classes.

    Raises:
        ConfigError: The teacher does not know some; the message names them.
    """
    missing = [name for name in own if name not in teacher]
    if missing:
        named = ", ".join(missing[:_MOST_NAMES]) + (", …" if len(missing) > _MOST_NAMES else "")
        raise ConfigError(
            f"the teacher does not know {len(missing)} of {len(own)} classes: {named}. Leave them out, name them as "
            f"it does, or take the kind embedding, which needs no common classes"
        )
    return torch.tensor([teacher[name] for name in sorted(own, key=own.__getitem__)], dtype=torch.int64)
