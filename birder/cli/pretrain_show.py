"""``birder pretrain show``: a picture of what a network has learned without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from birder.cli.options import whole_numbers
from birder.cli.progress import printable, say

if TYPE_CHECKING:
    import torch

    from birder.training.show import View

MOST = 64
"""Pictures on a sheet, which go through the network together."""

app = App(name="show", config=whole_numbers, default_parameter=Parameter(negative_iterable=()))


@app.default
def show(
    run: str,
    photos: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    *,
    output: Path = Path("sheet.png"),
    pictures: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST))] = 8,
    size: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    network: str | None = None,
    device: str = "auto",
) -> int:
    """Show what a network has learned without labels, on a few photographs.

    Of a run of mae, fcmae or simmim: each photograph, what the network saw of it, and what it drew in place of the
    hidden parts. Where a run draws without brightness and contrast, as most do, each hidden part gets back its true
    mean and contrast: look at the shapes.

    Of any other run, and of a model: each photograph, and its last feature map in colours. What has the same colour is
    much the same to the network, in all photographs of the sheet. Red, green and blue are the first three principal
    components. A run of mae, fcmae or simmim shows this, too, when RUN is its last.safetensors.

    Exit code: 0 when every photograph was read; 1 when some could not be, and are not on the sheet; 2 when nothing
    could be shown.

    Args:
        run: Folder of a run; or a published model, or a model file, .pt or .safetensors.
        photos: Pictures, and folders that are searched for pictures.
        output: Picture file for the sheet.
        pictures: Rows of the sheet, at most; of more photographs, some are taken, evenly spaced.
        size: Height and width of the pictures; left out, those of the run or the model.
        seed: Another one, other parts are hidden.
        network: Name of the network, if a model file does not tell.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.data.folders import find_images
    from birder.data.sheet import check_sheet, write_sheet
    from birder.device import resolve_device
    from birder.errors import DataError
    from birder.training.show import sheet_of_view, spread

    check_sheet(output)
    found = list(find_images(photos))
    if not found:
        raise DataError(f"no pictures in {', '.join(map(str, photos))}")
    view = _view(run, network, size, seed, resolve_device(device))
    chosen = spread(found, pictures)
    sheet, unreadable = sheet_of_view(view, chosen)
    write_sheet(output, sheet)
    console = Console(stderr=True)
    for path, reason in unreadable:
        say(console, f"not read: {printable(path)}: {printable(reason)}")
    say(console, f"{printable(output)} shows {len(chosen) - len(unreadable)} of {len(found)} pictures")
    return 1 if unreadable else 0


def _view(run: str, network: str | None, size: int | None, seed: int, device: "torch.device") -> "View":
    from birder.errors import ConfigError
    from birder.hub.fetch import locate
    from birder.model_file import load_model
    from birder.training.show import view_of_features, view_of_run

    sides = None if size is None else (size, size)
    if Path(run).is_dir():
        if network is not None:
            raise ConfigError(f"network: the run in {run} knows its own; leave --network out")
        return view_of_run(Path(run), seed=seed, size=sides, device=device)
    path, published = locate(run)
    net, info = load_model(path, network=network or published, size=sides)
    return view_of_features(net, info.rgb_stats, device=device)
