"""``birder explain``: where in photographs the answers come from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.options import model_and_pictures
from birder.cli.progress import Tally, printable, say

if TYPE_CHECKING:
    from birder.explain.panel import Panels
    from birder.inference.rows import Row


def explain(
    model: str,
    paths: Annotated[Sequence[Path], Parameter(consume_multiple=True, negative=())] = (),
    *,
    output: Path = Path("explained"),
    label: str | None = None,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    method: Literal["auto", "grad-cam", "rollout"] = "auto",
    stage: str | None = None,
    network: str | None = None,
    device: str = "auto",
) -> int:
    """Show where in photographs a model sees what speaks for its answers.

    For each photograph one picture is made: the photograph, and beside it the best answers, each with its probability
    and, laid over the photograph, the places that speak for it: from violet, a little, to yellow, the most.

    Prints a line for each photograph with path, status, reason, label, score and the file that was made, with tabs
    between. A file that cannot be read is a line with the reason.

    Exit code: 0 when every photograph was explained; 1 when some, or all, could not be read; 2 when nothing could be
    done: wrong use, an unreadable model, no pictures found; 130 after Ctrl-C.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors; left out, starter.
        paths: Pictures, and folders that are searched for pictures.
        output: Folder for what is made; for a single photograph also a file, such as why.png or why.jpg.
        label: Explain this class, and not the best answers.
        top: So many answers are explained.
        method: grad-cam, from a map of features; rollout, along the attention of a vision transformer; auto is rollout
            where a network has such attention, and grad-cam elsewhere.
        stage: With grad-cam, the map to look at, such as stage3, which is finer than the last; left out, the last.
        network: Name of the network, if the model file does not tell.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.data.folders import find_images
    from birder.errors import DataError

    model, paths = model_and_pictures(model, paths)
    pictures = list(find_images(paths))
    if not pictures:
        raise DataError(f"no pictures in {', '.join(map(printable, paths))}")
    targets = _targets(paths, pictures, output)
    # Torch takes seconds to load; what is wrong up to here is said at once.
    from birder.device import resolve_device
    from birder.explain.panel import Panels, Question
    from birder.hub.fetch import locate
    from birder.model_file import load_model

    path, published = locate(model)
    loaded = load_model(path, network=network or published, device=resolve_device(device))
    panels = Panels(*loaded, Question(top=top, label=label, method=method, stage=stage))
    tally = Tally(len(pictures), Console(stderr=True))
    for row, target in zip(tally.watch(_explained(panels, pictures, targets)), targets, strict=True):
        best = (printable(row.labels[0]), f"{row.scores[0]:.6f}", printable(target)) if row.labels else ("", "", "")
        print("\t".join((printable(row.path), row.status, printable(row.reason), *best)))
    say(tally.console, tally.summary())
    return 1 if tally.failures else 0


def _explained(panels: "Panels", pictures: list[Path], targets: list[Path]) -> Iterator["Row"]:
    """Make the panels, one after the other."""
    from birder.data.sheet import write_sheet

    for picture, target in zip(pictures, targets, strict=True):
        row, panel = panels(picture)
        if panel is not None:
            write_sheet(target, panel)
        yield row


def _targets(paths: Sequence[Path], pictures: list[Path], output: Path) -> list[Path]:
    """Where the panel of each picture goes.

    Raises:
        ConfigError: Several would go to one file, one would replace a photograph, or lie among them.
    """
    from birder.data.images import IMAGE_SUFFIXES
    from birder.data.sheet import check_sheet
    from birder.data.tables import check_folder
    from birder.errors import ConfigError

    if output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        if len(pictures) > 1:
            raise ConfigError(f"--output {output}: {len(pictures)} photographs need a folder, not a file")
        check_sheet(output)
        targets = [output]
    else:
        check_folder(output)
        targets = [output / name for name in _names(pictures)]
    folders = [path.resolve() for path in paths if path.is_dir()]
    photographs = {picture.resolve() for picture in pictures}
    for target in (place.resolve() for place in targets):
        if target in photographs or any(target.is_relative_to(folder) for folder in folders):
            raise ConfigError(f"--output {output}: lies among the photographs; choose a place outside of them")
    return targets


def _names(pictures: list[Path]) -> list[str]:
    """A file name for each picture: its own, with a number where another has it, too."""
    taken: set[str] = set()
    names = []
    for picture in pictures:
        name, number = picture.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{picture.stem}_{number}"
        taken.add(name.casefold())
        names.append(f"{name}.png")
    return names
