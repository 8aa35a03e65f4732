"""I-JEPA: from a part of a picture, say what a teacher makes of several blocks elsewhere in it.

Paper: Assran et al. 2023, https://arxiv.org/abs/2301.08243
Shapes: B images, C channels, H height, W width, L patches, K of them in the context, T targets of K' patches, S special
tokens, D width of a token, D' of the predictor.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.layers.position import sincos_positions
from birder.networks.base import DropsTokens, Network
from birder.objectives.base import Batch, check_ability, keep_all_paths, objectives
from birder.objectives.chance import draws, uncompiled
from birder.objectives.configs import IJEPAConfig
from birder.objectives.masking import context_and_targets
from birder.objectives.teacher import SelfTaught, linear_between
from birder.objectives.tokens import tokens_at

_TRIALS = 20
"""Draws of blocks before a run that must all succeed, with fewer attempts than those of the run have."""
_TRIAL_IMAGES = 64
_TRIAL_SIZES = 3


@objectives.register(i_jepa=IJEPAConfig)
class IJEPA(SelfTaught):
    """Learn the teacher's patches, without drawing any.

    Differs: The error is the smooth L1 loss, as in the authors' code, not the squared distance of the paper.

    Attributes:
        predictor: From the tokens of the context to those of a target.
    """

    reaches_all = False

    def __init__(self, network: Network, config: IJEPAConfig) -> None:
        """Train ``network``, which from now on drops no paths; the predictor is for pictures of its size.

        Raises:
            ConfigError: The network cannot drop tokens, or the targets leave too little of so few patches.
        """
        check_ability(
            network,
            DropsTokens,
            needed_by="i_jepa",
            ability="drop tokens",
            otherwise="take an objective that compares views of pictures, such as mmcr",
        )
        super().__init__(network)
        keep_all_paths(network)
        self.config = config
        self._check_grid()
        self.predictor = Predictor(network, self.grid, config)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, at random blocks."""
        images = batch.images
        context, targets = (each.to(images.device, non_blocking=True) for each in self.blocks(len(images)))
        return {"loss": F.smooth_l1_loss(self.predictions(images, context, targets), self.targets(images, targets))}

    def predictions(self, images: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """(B, C, H, W), positions of what is seen (B, K) and of what is to be told (B, T, K') -> (B, T, K', D)."""
        assert isinstance(self.network, DropsTokens)
        tokens = self.network.encode_visible(images, context)[:, self.network.num_special_tokens :]
        return self.predictor(tokens, context, targets).float()

    @torch.no_grad()
    def targets(self, images: Tensor, targets: Tensor) -> Tensor:
        """What the teacher makes of whole pictures, there: (B, C, H, W) and (B, T, K') -> (B, T, K', D)."""
        teacher = self.teacher_network
        assert isinstance(teacher, DropsTokens)
        everywhere = torch.arange(self.grid[0] * self.grid[1], device=images.device).expand(len(images), -1)
        tokens = teacher.encode_visible(images, everywhere)[:, teacher.num_special_tokens :].float()  # (B, L, D)
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        return tokens_at(tokens, targets.flatten(1)).unflatten(1, targets.shape[1:])

    @uncompiled
    def blocks(self, num_images: int) -> tuple[Tensor, Tensor]:
        """Random positions of what is seen, (B, K), and of what is to be told, (B, T, K'), on the CPU."""
        return self._blocks(num_images, generator=draws(self.training))

    def _blocks(self, num_images: int, **options: Any) -> tuple[Tensor, Tensor]:
        config = self.config
        return context_and_targets(
            num_images,
            self.grid,
            num_targets=config.num_targets,
            context_scale=config.context_scale,
            target_scale=config.target_scale,
            target_aspect=config.target_aspect,
            min_context=config.min_context,
            **options,
        )

    def _check_grid(self) -> None:
        """Refuse a grid on which blocks are hard to place: here a few sizes must do, so that a run never fails."""
        generator = draws(training=False)
        for _ in range(_TRIALS):
            self._blocks(_TRIAL_IMAGES, most_sizes=_TRIAL_SIZES, generator=generator)

    def momentum_at(self, progress: float) -> float:
        """On a line."""
        return linear_between(*self.config.momentum, progress)


class Predictor(nn.Module):
    """A narrow transformer that reads the context and one target at a time, of which it is shown the positions.

    Attributes:
        embed: From the network's tokens to its own.
        mask_token: (1, 1, D'), stands for each patch of a target.
        positions: (L, D'), a fixed table.
        blocks: Of the network's kind.
        norm: Behind the blocks.
        projection: Back to the width of the network.
    """

    positions: Tensor

    def __init__(self, network: Network, grid: tuple[int, int], config: IJEPAConfig) -> None:
        """For pictures of so many rows and columns of patches."""
        super().__init__()
        assert isinstance(network, DropsTokens)
        width = config.predictor_width
        self.embed = nn.Linear(network.embedding_size, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, width), std=0.02))
        self.register_buffer("positions", sincos_positions(grid, width))
        blocks = [network.token_block(width, config.predictor_heads) for _ in range(config.predictor_depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.projection = nn.Linear(width, network.embedding_size)

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """(B, K, D), their positions (B, K), and positions of the targets (B, T, K') -> (B, T, K', D)."""
        num_targets = targets.shape[1]
        seen = self.embed(tokens) + self.positions[context]  # (B, K, D')
        asked = self.mask_token + self.positions[targets.flatten(0, 1)]  # (B * T, K', D')
        x = torch.cat([seen.repeat_interleave(num_targets, dim=0), asked.to(seen.dtype)], dim=1)
        x = self.blocks(x)[:, context.shape[1] :]
        return self.projection(self.norm(x)).unflatten(0, (-1, num_targets))
