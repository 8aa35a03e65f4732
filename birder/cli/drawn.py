"""``birder drawn``: pictures of invented birds."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from birder.cli.progress import say
from birder.data.drawn import DrawnBirds
from birder.files import atomic


def drawn(
    folder: Path,
    *,
    per_species: int = 50,
    split: str = "train",
    guide: Path | None = None,
    birds: Annotated[DrawnBirds | None, Parameter(name="*")] = None,
) -> None:
    """Draw pictures of invented birds, in one folder per species, with a table of boxes.

    Equal options give equal pictures. They serve to try things out before there are photographs.

    Args:
        folder: Where the pictures go.
        per_species: Pictures of each species.
        split: Pictures of different splits are different pictures of the same species.
        guide: A picture file for a plate that shows every species.
        birds: What is drawn.
    """
    from rich.console import Console
    from rich.progress import Progress

    from birder.cores import available_cores
    from birder.data.drawn import field_guide, write_folder

    birds = birds or DrawnBirds()
    console = Console(stderr=True)
    total = per_species * len(birds.species_list)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing", total=total)
        write_folder(
            birds,
            folder,
            per_species,
            split=split,
            workers=min(available_cores(), 1 + total // 200),
            progress=lambda done: progress.update(task, completed=done),
        )
    say(console, f"{total} pictures of {len(birds.species_list)} species in {folder}")
    if guide is not None:
        with atomic(guide) as temporary:
            field_guide(birds).save(temporary)
