"""``birder demo``: the whole job on drawn birds."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from birder.evaluation.classification import Evaluation

_SHOWN, _MISTAKES = 24, 4


def demo(folder: Path = Path("demo")) -> None:
    """Draw birds of invented species, learn them, and name unseen ones.

    Takes two or three minutes on two cores. The folder then holds the pictures, the run with the model,
    predictions.csv, and contact_sheet.png: unseen pictures with predicted and true names.

    Args:
        folder: Where everything goes.
    """
    from rich.console import Console

    from birder.cli.drawn import drawn
    from birder.cli.predict import predict
    from birder.cli.progress import say
    from birder.data.samples import read_samples
    from birder.evaluation.classification import evaluate
    from birder.files import atomic
    from birder.model_file import load_model
    from birder.recipes import demo as recipes
    from birder.training.fit import fit

    console = Console(stderr=True)
    birds = recipes.birds()
    drawn(folder / "train", per_species=recipes.TRAINING_PICTURES, birds=birds, guide=folder / "field_guide.png")
    drawn(folder / "unseen", per_species=recipes.UNSEEN_PICTURES, split="unseen", birds=birds)
    fitted = fit(recipes.demo(folder / "train"), folder / "run", console=console)

    predict(fitted.model, [folder / "unseen"], top=2, output=folder / "predictions.csv")
    network, info = load_model(fitted.model)
    result = evaluate(network, info, read_samples(folder / "unseen", info.class_to_idx))
    with atomic(folder / "contact_sheet.png") as temporary:
        _sheet(result).save(temporary)
    say(console, f"{result.top1:.1%} of {result.pictures} unseen pictures named right")
    say(console, f"{folder / 'predictions.csv'} has all names, {folder / 'contact_sheet.png'} shows some of them")


def _sheet(result: "Evaluation") -> "Image":
    """A contact sheet of pictures of all species, and of mistakes, if there are any."""
    from birder.evaluation.sheet import Tile, contact_sheet

    tiles = [
        Tile(
            path=path,
            species=result.names[ranked[0]],
            probability=float(probabilities[0]),
            truth=result.names[label],
        )
        for path, label, ranked, probabilities in zip(
            result.paths, result.labels, result.ranked, result.probabilities, strict=True
        )
    ]
    mistakes = [tile for tile in tiles if tile.species != tile.truth]
    right = [tile for tile in tiles if tile.species == tile.truth]
    step = max(len(right) // (_SHOWN - len(mistakes[:_MISTAKES])), 1)
    shown = right[::step][: _SHOWN - len(mistakes[:_MISTAKES])] + mistakes[:_MISTAKES]
    title = f"{len(right)} of {len(tiles)} unseen pictures named right"
    return contact_sheet(shown, title=title)
