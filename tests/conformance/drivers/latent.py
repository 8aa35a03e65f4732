"""Drivers of the objectives that learn what a teacher makes of hidden parts."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from birder.objectives.configs import Data2VecConfig, IJEPAConfig
from birder.objectives.data2vec import Data2Vec
from birder.objectives.i_jepa import IJEPA


def data2vec(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Any:
    """Runs ``Data2Vec`` with the recorded mask."""
    options = spec["config"]
    config = Data2VecConfig(
        min_masked=1,
        top_layers=options["average_top_k_layers"],
        normalized_targets=options["normalize_targets"],
        beta=options["loss_beta"],
    )
    module = Data2Vec(tools.network(), config)
    names = tools.names(module, ("network.", "backbone."), ("teacher_network.", "ema_backbone."))
    tools.fill(module, names)
    return module, names, module.loss(tools.images(2, 12345), tools.array("mask").bool()), {}


def i_jepa(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Any:
    """Runs ``IJEPA`` with the recorded blocks: one context after the other, where there are several."""
    options = spec["predictor"]
    config = IJEPAConfig(
        num_targets=spec["n_pred"],
        predictor_depth=options["depth"],
        predictor_width=options["predictor_embed_dim"],
        predictor_heads=options["num_heads"],
    )
    module = IJEPA(tools.network(), config)
    names = tools.names(
        module,
        ("network.", "encoder.backbone."),
        ("teacher_network.", "target_encoder.backbone."),
        ("predictor.embed.", "predictor.predictor_embed."),
        ("predictor.positions", "predictor.pos_embedding"),
        ("predictor.blocks.", "predictor.encoder.block."),
        ("predictor.projection.", "predictor.predictor_proj."),
    )
    tools.fill(module, names)
    images = tools.images(2, 12345)
    targets = torch.stack([tools.array(f"pred{number}") for number in range(spec["n_pred"])], dim=1)
    contexts = [tools.array(f"enc{number}") for number in range(spec["n_enc"])]
    each = torch.stack([module.predictions(images, context, targets) for context in contexts])
    z = each.permute(2, 0, 1, 3, 4)  # (targets, contexts, images, K', D)
    h = module.targets(images, targets).transpose(0, 1).unsqueeze(1).expand_as(z)
    return module, names, F.smooth_l1_loss(z, h), {"z": z.flatten(0, 2), "h": h.flatten(0, 2)}
