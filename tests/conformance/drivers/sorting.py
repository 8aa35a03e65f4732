"""Of the objectives that sort pictures as a teacher does."""

from typing import Any

import torch
from torch import Tensor

from birder.objectives.base import Batch
from birder.objectives.configs import DINOConfig, IBOTConfig
from birder.objectives.dino import DINO
from birder.objectives.ibot import IBOT


def dino_v1(spec: Any, given: Any, tools: Any) -> Any:
    start, later, warmup, epochs = spec["temps"]
    config = DINOConfig(
        **head_options(spec),
        teacher_temperature=(start, later),
        temperature_warmup=(warmup - 1) / epochs,
    )
    module = DINO(tools.network(), config)
    for head in (module.head, module.teacher_head):
        set_lengths_free(head, not spec["config"]["norm_last_layer"])
    names = tools.names(module, *prefixes("last_layer"), ("center.value", "loss.center"))
    tools.fill(module, names)
    module.center.value.copy_(tools.noise(902, (1, config.prototypes), scale=0.1)[0])
    logits = watched(module.head), watched(module.teacher_head)
    progress = spec["epoch"] / epochs
    loss = module(crops(spec, tools), progress)["loss"]
    module.after_step(progress)
    student, teacher = (torch.cat(given) for given in logits)
    return module, names, loss, {"student": student, "teacher": teacher, "center": module.center.value[None]}


def ibot(spec: Any, given: Any, tools: Any) -> Any:
    options, epochs = spec["loss"], spec["loss"]["epochs"]
    config = IBOTConfig(
        **head_options(spec),
        patch_prototypes=spec["config"]["patch_out_dim"],
        shared_head=spec["config"]["shared_head"],
        teacher_temperature=(options["warmup_teacher_temp"], options["teacher_temp"]),
        patch_temperature=(options["warmup_teacher_temp2"], options["teacher_temp2"]),
        temperature_warmup=(options["warmup_teacher_temp_epochs"] - 1) / epochs,
        patch_warmup_start=options["mim_start_epoch"] / epochs,
        student_temperature=options["student_temp"],
        center_momentum=options["center_momentum"],
        patch_weight=options["lambda2"] / options["lambda1"],
    )
    module = IBOT(tools.network(), config)
    names = tools.names(
        module,
        *prefixes("last_layer2" if config.shared_head else "last_layer", "last_layer2"),
        ("mask_token", "student.mask_token"),
        ("center.value", "loss.center"),
        ("patch_center.value", "loss.center2"),
    )
    tools.fill(module, names)
    mask = tools.array("mask").flatten(0, 1).bool()
    module.masks = lambda number, grid: mask
    student, teacher = watched(module.head), watched(module.teacher_head)
    batch, progress = crops(spec, tools), spec["epoch"] / epochs
    losses = module(batch, progress)
    module.after_step(progress)
    patches = options["lambda2"] * losses["patch_loss"]
    return (
        module,
        names,
        losses["loss"],
        {
            "student": student[0][:4],
            "local": student[0][4:],
            "student_features": patch_logits(module, batch, mask),
            "teacher": teacher[0],
            "loss_embedding": losses["picture_loss"][None],
            "loss_features": patches[None],
            "loss_all": losses["loss"][None],
            "center": module.center.value[None],
            "center2": module.patch_center.value[None, None],
        },
    )


def head_options(spec: Any) -> dict[str, Any]:
    """What both objectives have in common."""
    config, sizes = spec["config"], spec["crops"]
    return {
        "prototypes": config["out_dim"],
        "hidden": config["hidden_dim"],
        "bottleneck": config["bottleneck_dim"],
        "head_depth": config["num_layers"],
        "head_batch_norm": config.get("use_bn", False),
        "small_views": len(sizes) - 2,
        "small_size": sizes[-1],
        "hold_last": 0.0,
    }


def prefixes(*last: str) -> list[tuple[str, str]]:
    """Our names of the student and the teacher, and the recorded ones."""
    pairs = []
    for ours, theirs in (("", "student."), ("teacher_", "teacher.")):
        pairs += [(f"{ours}network.", f"{theirs}backbone."), (f"{ours}head.mlp.", f"{theirs}head.mlp.")]
        pairs += [(f"{ours}head.last.{number}.", f"{theirs}head.{name}.") for number, name in enumerate(last)]
    return pairs


def crops(spec: Any, tools: Any) -> Batch:
    """Two pictures in all their crops."""
    views = [tools.images(2, 500 + 10 * number, size=(side, side)) for number, side in enumerate(spec["crops"])]
    return Batch(
        images=torch.stack(views[:2], dim=1),
        small=torch.stack(views[2:], dim=1),
        labels=torch.zeros(2, dtype=torch.int64),
    )


def set_lengths_free(head: Any, free: bool) -> None:
    """Let the lengths of the prototypes learn, which ours never do."""
    for layer in head.last:
        layer.parametrizations.weight.original0.requires_grad_(free)


def watched(head: Any) -> list[Tensor]:
    """The logits that a head will give of pictures, one tensor for each call."""
    seen: list[Tensor] = []
    nearness = head.nearness

    def told(points: Tensor, which: int = 0, *, held: bool = False) -> Tensor:
        logits: Tensor = nearness(points, which, held=held)
        if which == 0:
            seen.append(logits.detach())
        return logits

    head.nearness = told
    return seen


@torch.no_grad()
def patch_logits(module: IBOT, batch: Batch, mask: Tensor) -> Tensor:
    """The student's of all patches, though the loss needs those of the hidden ones only."""
    large = batch.images.transpose(0, 1).flatten(0, 1)
    tokens = module.network.encode_masked_tokens(large, mask, module.mask_token)[:, 1:]
    return module.head.nearness(module.head(tokens.flatten(0, 1)), -1).unflatten(0, tokens.shape[:2])
