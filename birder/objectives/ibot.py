"""iBOT: DINO, and sort the hidden patches of a picture into the same kinds as a teacher that sees them.

Paper: Zhou et al. 2022, https://arxiv.org/abs/2111.07832
Shapes: B pictures, C channels, H height, W width, V crops of each, L patches of a large crop, M hidden patches of all
large crops, S special tokens, D their width, K kinds.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from birder.networks.base import Network
from birder.objectives.base import Batch, check_ability, objectives
from birder.objectives.chance import draws, uncompiled
from birder.objectives.configs import IBOTConfig
from birder.objectives.masking import block_masks
from birder.objectives.prototypes import Center, Sorter, alike, crop_by_crop, entropy, temperature


@runtime_checkable
class TokensOfMasked(Protocol):
    """A network that tells all tokens of a picture with hidden parts, of which ``pool`` makes the embedding."""

    num_special_tokens: int
    """S, tokens in front of those of the patches."""

    def encode_masked_tokens(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """Image (B, C, H, W), mask (B, L) and token (1, 1, 1, D) to the tokens (B, S + L, D); see ``MasksTokens``."""
        ...


@objectives.register(ibot=IBOTConfig)
class IBOT(Sorter):
    """Learn from the crops of each picture and from the hidden patches of the large ones.

    Attributes:
        mask_token: Put in the place of hidden patches.
        center: Of the teacher's logits of pictures.
        patch_center: Of its logits of patches.
    """

    config: IBOTConfig

    def __init__(self, network: Network, config: IBOTConfig) -> None:
        """Train ``network``, which from now on takes pictures of any size.

        Raises:
            ConfigError: A network that does not tell the tokens of masked pictures, or small crops of a size that it
                cannot take.
        """
        check_ability(
            network,
            TokensOfMasked,
            needed_by="ibot",
            ability="tell the tokens of a picture with hidden patches",
            otherwise="take dino, which sorts whole pictures only",
        )
        super().__init__(network, config, config.prototypes, *[config.patch_prototypes] * (not config.shared_head))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, network.stem_width))
        self.patch_center = Center(config.patch_prototypes, config.center_momentum)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, its parts ``picture_loss`` and ``patch_loss``, and ``teacher_entropy`` of the pictures' kinds."""
        count, held, network = len(batch.images), self.held(progress), self.network
        large = crop_by_crop(batch.images)  # (2 B, C, H, W)
        mask = self.masks(len(large), (large.shape[2] // network.max_stride, large.shape[3] // network.max_stride))
        hidden, shares = (each.to(large.device) for each in hidden_patches(mask))
        teacher, patch_teacher = self._taught(large, hidden, progress, collected=self.training and not batch.blank)

        assert isinstance(network, TokensOfMasked)
        tokens = network.encode_masked_tokens(large, mask.to(large.device), self.mask_token)  # (2 B, S + L, D)
        embeddings = [network.pool(tokens)]
        if batch.small is not None:
            embeddings.append(network.embedding(crop_by_crop(batch.small)))
        pictures = torch.cat(embeddings)
        points = self.head(torch.cat([pictures, self._patches(tokens)[hidden]]))  # (V B + M, P)
        student = self.judged(self.head.nearness(points[: len(pictures)], held=held))  # (V B, K)
        patch_student = self.judged(self.head.nearness(points[len(pictures) :], -1, held=held))  # (M, K)

        picture_loss = alike(student.unflatten(0, (-1, count)), teacher.unflatten(0, (-1, count)))
        patch_loss = patches_alike(patch_student, patch_teacher, shares)
        return {
            "loss": picture_loss + self.config.patch_weight * patch_loss,
            "picture_loss": picture_loss.detach(),
            "patch_loss": patch_loss.detach(),
            "teacher_entropy": entropy(teacher),
        }

    def after_step(self, progress: float) -> None:
        """The teacher follows the student, and the centres follow the teacher."""
        super().after_step(progress)
        self.patch_center.move()

    @uncompiled
    def masks(self, number: int, grid: tuple[int, int]) -> Tensor:
        """Blocks in some of the large crops, (2 B, L), bool, True where hidden; in evaluation the same each time."""
        generator = draws(self.training)
        some, share = torch.rand(2, number, generator=generator)
        low, high = self.config.mask_ratio
        hidden = (low + (high - low) * share) * (some < self.config.mask_probability)
        return block_masks((hidden * grid[0] * grid[1]).round().long(), grid, generator=generator)

    @torch.no_grad()
    def _taught(self, large: Tensor, hidden: Tensor, progress: float, *, collected: bool) -> tuple[Tensor, Tensor]:
        """What the teacher says of the large crops, (2 B, K), and of their hidden patches, (M, K)."""
        config, head = self.config, self.teacher_head
        tokens = self.teacher_network.forward_features(large)  # (2 B, S + L, D)
        points = head(torch.cat([self.teacher_network.pool(tokens), self._patches(tokens)]))
        points, patch_points = points[: len(large)], points[len(large) :]  # (2 B, P), (2 B L, P)
        start, warmup = config.patch_warmup_start, config.temperature_warmup
        now = temperature(config.teacher_temperature, progress, warmup)
        patch_now = temperature(config.patch_temperature, progress, warmup, start)
        teacher = self.center.judged(head.nearness(points), now)
        patch_teacher = self.patch_center.judged(head.nearness(patch_points[hidden], -1), patch_now)
        if collected:
            self.center.collect(head.mean_nearness(points), len(points))
            self.patch_center.collect(head.mean_nearness(patch_points, -1), len(patch_points))
        return teacher, patch_teacher

    def _patches(self, tokens: Tensor) -> Tensor:
        """(2 B, S + L, D) -> (2 B L, D)."""
        assert isinstance(self.network, TokensOfMasked)
        return tokens[:, self.network.num_special_tokens :].flatten(0, 1)


@uncompiled
def hidden_patches(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where patches are hidden, and what each counts, (2 B, L) -> (M,) and (M,).

    It is best done on the CPU, where a number that is not known before keeps nobody waiting.

    Args:
        mask: Bool, of which M are True.

    Returns:
        Places in the patches of all crops, and shares in the mean over those of a crop and then over all crops.
    """
    shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1) / len(mask)
    return mask.flatten().nonzero().squeeze(1), shares[mask]


def patches_alike(student: Tensor, teacher: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of hidden patches, mean over those of a crop and then over all crops; 0 for a crop without any.

    Args:
        student: (M, K), logarithms of probabilities.
        teacher: (M, K), probabilities.
        shares: (M,), of ``hidden_patches``.
    """
    return -((teacher * student).sum(dim=1) * shares).sum()
