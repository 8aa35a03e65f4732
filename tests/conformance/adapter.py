"""How the conformance checker, ``shared/golden/check.py`` beside the repository, calls this package.

The checker joins this class with its own base class, which speaks the interface of ``birder.networks.base.Network``;
here is what it has no default for. What is neither there nor here is not covered, and is listed as skipped.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from conformance import NotCovered  # of the checker
from torch import Tensor, nn

from birder.catalogue import find
from birder.errors import UnknownName
from birder.model_file import TASK, ModelInfo, load_model, load_model_with_cfg, load_weights
from birder.model_file.pretraining import MASKED_IMAGES
from birder.networks import Network, list_networks
from birder.networks.vit import ViT
from birder.objectives.masking import (
    block_masks,
    context_and_targets,
    fixed_block_masks,
    random_counts,
    rolled_block_masks,
    uniform_masks,
    visible_first,
    with_count,
)
from birder.objectives.pixels import PixelObjective
from birder.signature import RGBStats, rgb_stats

sys.path.insert(0, str(Path(__file__).parent))
from drivers import DRIVERS  # of the objectives, beside this file
from drivers.masked import masked_image_objective, masked_image_outputs


class Adapter:
    """See ``shared/golden/ADAPTER.md`` for what each method gives."""

    def list_networks(self) -> list[str]:
        return list_networks()

    def rgb_stats(self, mode: str) -> RGBStats:
        return rgb_stats(mode)

    def load_model(
        self, path: Path, network: str, config: Mapping[str, Any] | None = None
    ) -> tuple[Network, ModelInfo]:
        with known_networks_only():
            return load_model(path, network=network, config=config)

    def load_model_with_cfg(self, cfg: Path, path: Path) -> nn.Module:
        """Of a file of masked images, what is pretrained with its decoder, which is only needed here."""
        content = json.loads(cfg.read_text(encoding="utf-8"))
        if content["task"] not in (TASK, MASKED_IMAGES):
            raise NotCovered(f"task {content['task']}")
        with known_networks_only():
            network = load_model_with_cfg(cfg, path)[0]
        if content["task"] == TASK:
            return network
        objective, recorded = masked_image_objective(content["name"], network, content["model_config"])
        state = torch.load(path, weights_only=True)["state"]
        objective.load_state_dict({name: state[recorded(name)] for name in objective.state_dict()})
        return objective

    def masked_image_outputs(self, net: PixelObjective, x: Tensor, given: Mapping[str, Any]) -> dict[str, Tensor]:
        return masked_image_outputs(net, x, torch.from_numpy(given["mask"]).bool())

    def encode_masked_embedding(self, net: Network, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        if isinstance(net, ViT):
            return net.pool(net.encode_masked_tokens(x, mask, token))
        return net.pool(net.encode_masked(x, mask, token))

    def all_layers(self, net: Network, x: Tensor) -> Tensor:
        return torch.stack(net.encode_layers(x), dim=-1)

    def pretrained(self, name: str) -> dict[str, Any]:
        entry = find(name)
        return {
            "url": entry.url,
            "resolution": entry.resolution,
            "formats": {form: vars(file) for form, file in entry.formats.items()},
            "net": stated(
                network=entry.network, tag=entry.tag, epoch=entry.epoch, reparameterized=entry.reparameterized
            ),
            "task": entry.task,
            "backbone": entry.backbone and stated(**vars(entry.backbone)),
            "encoder": entry.encoder and stated(**vars(entry.encoder)),
        }

    def load_state(self, net: Network, state: Mapping[str, Tensor]) -> None:
        load_weights(net, state)

    def objective(self, driver: str, spec: Mapping[str, Any], given: Mapping[str, Any], tools: Any) -> Any:
        if driver not in DRIVERS:
            raise NotCovered(driver)
        return DRIVERS[driver](spec, given, tools)

    def mask(self, generator: str, spec: Mapping[str, Any]) -> Any:
        number, grid, options = spec["n"], tuple(spec["grid"]), spec["kwargs"]
        match generator:
            case "uniform_mask" | "UniformMasking":
                mask = uniform_masks(number, grid, options["mask_ratio"], cell=options.get("min_mask_size", 1))
                if generator == "UniformMasking":
                    return mask
                visible, restore = visible_first(mask)
                hidden = int(mask.shape[1] * options.get("kept_mask_ratio", 1.0))
                return with_count(mask, min(hidden, int(mask[0].sum()))), visible, restore
            case "BlockMasking":
                smallest = options["min_num_patches"]
                hidden = random_counts(number, options.get("min_masking_patches", smallest), options["max_num_patches"])
                aspect = (options["min_aspect"], options["max_aspect"])
                return block_masks(hidden, grid, smallest=smallest, aspect=aspect)
            case "FixedSizeBlockMasking":
                return fixed_block_masks(
                    number,
                    grid,
                    options["mask_ratio"],
                    block=options["block_size"],
                    adjust=options.get("mask_ratio_adjust", 0.0),
                    inverse=options.get("inverse_mask", False),
                )
            case "RollBlockMasking" | "InverseRollBlockMasking":
                hidden = torch.full((number,), options["num_masking_patches"])
                return rolled_block_masks(hidden, grid, inverse=generator.startswith("Inverse"))
            case "MultiBlockMasking" if options["n_enc"] == 1 and not options["allow_overlap"]:
                return self._multi_block_masks(spec)
        raise NotCovered(f"masks of {generator}, {options}")

    def _multi_block_masks(self, spec: Mapping[str, Any]) -> Any:
        options = spec["kwargs"]
        calls = [
            context_and_targets(
                spec["batch"],
                tuple(spec["grid"]),
                num_targets=options["n_pred"],
                context_scale=options["enc_mask_scale"],
                target_scale=options["pred_mask_scale"],
                target_aspect=options["aspect_ratio"],
                min_context=options["min_keep"],
            )
            for _ in range(spec["n"] // spec["batch"])
        ]
        contexts = [one for context, _ in calls for one in context]
        targets = [one for _, target in calls for one in target]
        return [contexts], [[one[block] for one in targets] for block in range(options["n_pred"])]


def stated(**facts: Any) -> dict[str, Any]:
    """The facts that the catalogue states."""
    return {name: value for name, value in facts.items() if value}


@contextmanager
def known_networks_only() -> Iterator[None]:
    """A file of a network that this package does not have is not covered."""
    try:
        yield
    except UnknownName as error:
        raise NotCovered(str(error)) from error
