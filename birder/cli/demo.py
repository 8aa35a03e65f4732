"""``birder demo``: the whole job on drawn birds."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from birder.evaluation.sheet import Tile
    from birder.inference.rows import Row

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
    from birder.inference.options import Options
    from birder.inference.predictor import Predictor
    from birder.inference.results.output import open_output
    from birder.recipes import demo as recipes
    from birder.training.fit import fit

    console = Console(stderr=True)
    birds = recipes.birds()
    drawn(folder / "train", per_species=recipes.TRAINING_PICTURES, birds=birds, guide=folder / "field_guide.png")
    drawn(folder / "unseen", per_species=recipes.UNSEEN_PICTURES, split="unseen", birds=birds)
    fitted = fit(recipes.demo(folder / "train"), folder / "run", console=console)

    # The same on every machine, and so small that there is nothing to gain.
    with Predictor(fitted.model, Options(top=2, backend="torch", precision="fp32")) as predictor:
        rows = list(predictor.stream(find_images([folder / "unseen"])))
    with open_output(folder / "predictions.csv", predictor.layout) as results:
        results.write(rows)
    print_table(Console(), rows[:: len(rows) // _ROWS or 1])
    tiles = [_tile(row) for row in rows if row.labels]
    with atomic(folder / "contact_sheet.png") as temporary:
        _sheet(tiles).save(temporary)
    right = sum(tile.species == tile.truth for tile in tiles)
    say(console, f"{right / len(rows):.1%} of {len(rows)} unseen pictures named right")
    say(console, f"{folder / 'predictions.csv'} has all names, {folder / 'contact_sheet.png'} shows some of them")


def _tile(row: "Row") -> "Tile":
    from birder.evaluation.sheet import Tile

    path = Path(row.path)
    return Tile(path=path, species=row.labels[0], probability=row.scores[0], truth=path.parent.name)


def _sheet(tiles: "list[Tile]") -> "Image":
    """A contact sheet of pictures of all species, and of mistakes, if there are any."""
    from birder.evaluation.sheet import contact_sheet

    right = [tile for tile in tiles if tile.species == tile.truth]
    wrong = [tile for tile in tiles if tile.species != tile.truth][:_MISTAKES]
    count = _SHOWN - len(wrong)
    shown = [right[number * len(right) // count] for number in range(count)] if len(right) >= count else right
    return contact_sheet(shown + wrong, title=f"{len(right)} of {len(tiles)} unseen pictures named right")
