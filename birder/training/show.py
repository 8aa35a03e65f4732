"""What a run or a model makes of some pictures, as a sheet to look at.

Shapes: B pictures, H height, W width, h x w = L patches. Colours are 0-1.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from birder.data.images import read_image
from birder.data.sheet import Row, sheet_of_rows
from birder.data.transforms import InferenceTransform, classification_transform
from birder.errors import ConfigError, DataError, ImageError, WeightsMismatch
from birder.evaluation.feature_map import feature_colours
from birder.model_file import load_model
from birder.networks import Network
from birder.objectives.masking import uniform_masks
from birder.objectives.methods import create_objective, objectives
from birder.objectives.pixels import PixelObjective
from birder.signature import RGBStats
from birder.training.checkpoints import read_checkpoint
from birder.training.folder import RunFolder
from birder.training.recipe import Recipe, read_recipe
from birder.training.start import Start

logger = logging.getLogger("birder")

GREY = 0.5
"""What is hidden from the network is so bright on the sheet."""
_TILE = 224  # small pictures are enlarged as far as they stay below, in pixels

Seen = dict[str, Tensor]
"""What is shown beside each picture, by what is written below: (B, 3, H, W)."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A way to look at pictures."""

    transform: InferenceTransform
    """From a picture to what the network takes."""
    see: Callable[[Tensor], Seen]
    """From uint8 (B, 3, H, W) to what is shown beside each."""


def view_of_run(
    path: Path, *, seed: int = 0, size: tuple[int, int] | None = None, device: torch.device | str = "cpu"
) -> View:
    """How a run sees pictures; those that it learned from need not be there any more.

    One that draws what is hidden from it, such as MAE, shows that, as its newest checkpoint does it. Of any other it is
    the features of its newest model.

    Args:
        path: Folder of the run, which may still be going on.
        seed: Of the masks.
        size: (height, width) of the pictures; None is that of the run, and all that one that draws can take.
        device: Where to compute.

    Raises:
        ConfigError: The folder holds no run, its run has not come far enough, or it cannot have that size.
        DataError: All checkpoints are damaged.
        WeightsMismatch: The checkpoint is of another run than the recipe.
    """
    folder = RunFolder(path)
    if not folder.recipe.is_file():
        raise ConfigError(f"{path} is not the folder of a run: it has no {folder.recipe.name}")
    recipe = read_recipe(folder.recipe)
    if not issubclass(objectives[recipe.objective.name][0], PixelObjective):
        if not folder.last.exists():
            raise ConfigError(f"{path} has no model yet: there is one after the first epoch of the run")
        network, info = load_model(folder.last, size=size)
        return view_of_features(network, info.rgb_stats, device=device)
    objective, stats = trained_objective(folder, recipe)
    if size not in (None, objective.size):
        raise ConfigError(
            f"size: the run in {path} draws pictures of {objective.size} only; {folder.last} shows features of any"
        )
    return view_of_drawing(objective, stats, seed=seed, device=device)


def trained_objective(folder: RunFolder, recipe: Recipe) -> tuple[PixelObjective, RGBStats]:
    """The network of a run and what draws with it, as its newest checkpoint has them, and the colour statistics.

    Args:
        folder: Where the run is.
        recipe: Its recipe, of an objective that draws.

    Raises:
        ConfigError: There is no checkpoint yet.
        DataError: All checkpoints are damaged.
        WeightsMismatch: The checkpoint is of another run than the recipe.
    """
    newest = folder.checkpoints(recipe.run.keep).newest(logger.warning)
    if newest is None:
        raise ConfigError(f"{folder.path} has no checkpoint yet: there is one after the first epoch of the run")
    state = read_checkpoint(newest)
    start = Start(recipe, state.get("start"))
    objective = create_objective(recipe.objective, start.network({}), rgb_stats=start.rgb_stats)
    assert isinstance(objective, PixelObjective)
    saved = state["engine"]["objective"]
    shapes, own = ({name: weight.shape for name, weight in each.items()} for each in (saved, objective.state_dict()))
    if different := sorted({name for name, _ in shapes.items() ^ own.items()}):
        raise WeightsMismatch(
            f"{newest}: {len(different)} weights are not those of {folder.recipe.name}: {', '.join(different[:3])}"
        )
    objective.load_state_dict(saved)
    return objective, start.rgb_stats


def view_of_drawing(
    objective: PixelObjective, stats: RGBStats, *, seed: int = 0, device: torch.device | str = "cpu"
) -> View:
    """What is hidden of each picture, and what is drawn in its place.

    Args:
        objective: What draws; it is put into evaluation mode.
        stats: Colour statistics of its pictures.
        seed: Of the masks.
        device: Where to compute, and where the objective is moved.
    """
    objective.to(device).eval()
    transform = classification_transform(objective.size, stats)

    def see(pixels: Tensor) -> Seen:
        images = transform.normalize(pixels.to(device))
        generator = torch.Generator().manual_seed(seed)
        mask = uniform_masks(
            len(images), objective.grid, objective.mask_ratio, cell=objective.cell, generator=generator
        )
        mask, drawn = objective.reconstruct(images, mask)
        hidden = F.interpolate(mask.float().unflatten(1, (1, objective.grid[0], -1)), size=objective.size) > 0
        mean, std = (
            torch.tensor(values, device=drawn.device).view(3, 1, 1) for values in (stats["mean"], stats["std"])
        )
        # A drawing without brightness and contrast cannot be shown: it has got those of the true patches.
        helped = bool(objective.scale(images)[0].any())
        return {
            "seen": torch.where(hidden.cpu(), GREY, pixels / 255),
            "reconstruction, true contrast" if helped else "reconstruction": (drawn * std + mean).cpu(),
        }

    return View(transform=transform, see=see)


def view_of_features(network: Network, stats: RGBStats, *, device: torch.device | str = "cpu") -> View:
    """The last feature map of each picture in colours; see ``birder.evaluation.feature_map``.

    Args:
        network: It is put into evaluation mode.
        stats: Colour statistics, from the model file.
        device: Where to compute, and where the network is moved.

    Raises:
        ConfigError: A network that does not take RGB.
    """
    if network.input_channels != 3:
        raise ConfigError(f"pictures have 3 channels, this network takes {network.input_channels}")
    network.to(device).eval()
    transform = classification_transform(network.size, stats)

    def see(pixels: Tensor) -> Seen:
        colours = feature_colours(network, transform.normalize(pixels.to(device)))
        return {"features": F.interpolate(colours, size=network.size, mode="nearest-exact")}

    return View(transform=transform, see=see)


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of some paths, evenly spaced."""
    count = min(count, len(paths))
    return [paths[(2 * place + 1) * len(paths) // (2 * count)] for place in range(count)]


def sheet_of_view(view: View, paths: Sequence[Path]) -> tuple[Image.Image, list[tuple[Path, str]]]:
    """An RGB picture with a row for each picture, and the paths that could not be read, with the reason.

    Each row has the picture as the network gets it, and what is seen in it; small ones are enlarged to squares of equal
    pixels.

    Args:
        view: How to look.
        paths: Files of pictures, which go through the network together.

    Raises:
        DataError: There are none, or not one can be read.
    """
    pixels: dict[Path, Tensor] = {}
    unreadable: list[tuple[Path, str]] = []
    for path in paths:
        try:
            pixels[path] = view.transform.pixels(read_image(path))
        except ImageError as error:
            unreadable.append((path, str(error)))
    if not pixels:
        first = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise DataError(f"none of {len(paths)} pictures can be read{first}")
    batch = torch.stack(list(pixels.values()))
    columns = {"picture": batch / 255, **view.see(batch)}
    side = max(view.transform.size)
    scale = max(_TILE // side, 1)
    tiles = [[_tile(image, scale) for image in column] for column in columns.values()]
    rows = [
        Row(title=str(path), pictures=pictures, captions=list(columns))
        for path, pictures in zip(pixels, zip(*tiles, strict=True), strict=True)
    ]
    return sheet_of_rows(rows, tile=scale * side), unreadable


def _tile(image: Tensor, scale: int) -> Image.Image:
    """(3, H, W) to a picture of whole pixels, each so many times as wide and high."""
    values = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    picture = Image.fromarray(values.contiguous().numpy())
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
