"""Objectives that compare views of a picture: the checker's drivers ``mmcr_loss``, ``mmcr`` and ``two_views``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from birder.objectives.base import Batch, Objective
from birder.objectives.configs import (
    BarlowTwinsConfig,
    BYOLConfig,
    MMCRConfig,
    ObjectiveConfig,
    SimCLRConfig,
    VICRegConfig,
)
from birder.objectives.methods import create_objective
from birder.objectives.mmcr import mmcr_loss as loss_of_mmcr

Driven = tuple[Any, Any, Tensor, dict[str, Tensor]]

# Our beginnings of names, and the recorded ones.
RECORDED = {
    "mmcr": (
        ("network.", "encoder.backbone."),
        ("head.", "encoder.projector."),
        ("teacher_network.", "momentum_encoder.backbone."),
        ("teacher_head.", "momentum_encoder.projector."),
    ),
    "simclr": (("network.", "backbone."), ("head.", "projection_head.")),
    "vicreg": (("network.", "backbone."), ("head.", "projector.")),
    "barlow_twins": (("network.", "backbone."), ("head.", "projector."), ("norm.", "bn.")),
    "byol": (
        ("network.", "online_encoder.backbone."),
        ("teacher_network.", "target_encoder.backbone."),
        *(
            (f"{ours}.{number}.", f"{theirs}.{layer}.")
            for ours, theirs in (
                ("head", "online_encoder.projector"),
                ("predictor", "online_predictor"),
                ("teacher_head", "target_encoder.projector"),
            )
            for number, layer in ((0, "fc1"), (1, "norm"), (3, "fc2"))
        ),
    ),
}


def mmcr_loss(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Driven:
    shape = (spec["batch"], spec["n_aug"], spec["dim"])
    z = tools.noise(900, (shape[0] * shape[1], shape[2]))
    teacher = 0.8 * z + 0.6 * tools.noise(901, tuple(z.shape))
    module = tools.holder(z=z)
    loss = loss_of_mmcr(module.z.view(shape), teacher.view(shape), spec["lambda_coeff"])
    return module, None, loss, {}


def mmcr(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Driven:
    config = MMCRConfig(
        num_views=spec["n_aug"],
        projector=tuple(spec["config"]["projector_dims"]),
        local_weight=spec["lambda_coeff"],
    )
    images = tools.images(spec["batch"] * spec["n_aug"], 500).unflatten(0, (spec["batch"], spec["n_aug"]))
    module, names, loss = _run(config, images, tools)
    with torch.no_grad():
        z, teacher = (rows.flatten(0, 1) for rows in module.projections(images))
    return module, names, loss, {"z": z, "z_m": teacher}


def two_views(spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Driven:
    options, config = spec["config"], None
    match spec["class"][0]:
        case "simclr":
            config = SimCLRConfig(
                projection=options["projection_dim"],
                hidden=options["projection_hidden_dim"],
                temperature=options["temperature"],
            )
        case "byol":
            config = BYOLConfig(projection=options["projection_size"], hidden=options["projection_hidden_size"])
        case "barlowtwins":
            config = BarlowTwinsConfig(projector=tuple(options["projector_sizes"]), off_diagonal=options["off_lambda"])
        case "vicreg":
            config = VICRegConfig(
                projector=(options["mlp_dim"],) * 3,
                invariance=options["sim_coeff"],
                variance=options["std_coeff"],
                covariance=options["cov_coeff"],
            )
    assert config is not None, spec["class"]
    first = tools.images(spec["batch"], 500)
    second = 0.7 * first + 0.3 * tools.images(spec["batch"], 600)
    module, names, loss = _run(config, torch.stack([first, second], dim=1), tools)
    return module, names, loss, {}


def _run(config: ObjectiveConfig, images: Tensor, tools: Any) -> tuple[Objective, Any, Tensor]:
    module = create_objective(config, tools.network())
    names = tools.names(module, *RECORDED[config.name])
    tools.fill(module, names)
    labels = torch.zeros(len(images), dtype=torch.int64)
    return module, names, module(Batch(images=images, labels=labels), 0.0)["loss"]
