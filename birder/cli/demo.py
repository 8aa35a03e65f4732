"""``birder demo``: the whole job on drawn birds."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from birder.evaluation.sheet import Tile
    from birder.inference.predictor import Prediction

_SHOWN, _MISTAKES = 24, 4  # tiles of the contact sheet
_ROWS = 12  # of the table


def demo(folder: Path = Path("demo")) -> None:
    """Draw birds of invented species, learn them, and name unseen ones.

    Takes two or three minutes on two cores. The folder then holds the pictures, the run with the model,
    predictions.csv, and contact_sheet.png: unseen pictures with predicted and true names.

    Args:
        folder: Where everything goes.
    """
    from rich.console import Console

    from birder.cli.drawn import drawn
    from birder.cli.predict import print_table
    from birder.cli.progress import say
    from birder.data.folders import find_images
    from birder.files import atomic
    from birder.inference.predictor import Prediction, predict
    from birder.inference.results import open_results
    from birder.model_file import load_model
    from birder.recipes import demo as recipes
    from birder.training.fit import fit

    console = Console(stderr=True)
    birds = recipes.birds()
    drawn(folder / "train", per_species=recipes.TRAINING_PICTURES, birds=birds, guide=folder / "field_guide.png")
    drawn(folder / "unseen", per_species=recipes.UNSEEN_PICTURES, split="unseen", birds=birds)
    fitted = fit(recipes.demo(folder / "train"), folder / "run", console=console)

    network, info = load_model(fitted.model)
    rows = list(predict(network, info, find_images([folder / "unseen"]), top=2))
    with open_results(folder / "predictions.csv", top=2) as results:
        results.write(rows)
    print_table(Console(), rows[:: len(rows) // _ROWS or 1])
    tiles = [_tile(row) for row in rows if isinstance(row, Prediction)]
    with atomic(folder / "contact_sheet.png") as temporary:
        _sheet(tiles).save(temporary)
    right = sum(tile.species == tile.truth for tile in tiles)
    say(console, f"{right / len(rows):.1%} of {len(rows)} unseen pictures named right")
    say(console, f"{folder / 'predictions.csv'} has all names, {folder / 'contact_sheet.png'} shows some of them")


def _tile(row: "Prediction") -> "Tile":
    from birder.evaluation.sheet import Tile

    return Tile(path=row.path, species=row.names[0], probability=row.probabilities[0], truth=row.path.parent.name)


def _sheet(tiles: "list[Tile]") -> "Image":
    """A contact sheet of pictures of all species, and of mistakes, if there are any."""
    from birder.evaluation.sheet import contact_sheet

    right = [tile for tile in tiles if tile.species == tile.truth]
    wrong = [tile for tile in tiles if tile.species != tile.truth][:_MISTAKES]
    count = _SHOWN - len(wrong)
    shown = [right[number * len(right) // count] for number in range(count)] if len(right) >= count else right
    return contact_sheet(shown + wrong, title=f"{len(right)} of {len(tiles)} unseen pictures named right")
