"""The chains of ``birder.recipes.cards`` at toy scale: the same stages on drawn birds, each in minutes on two cores.

They show that every stage does what it is for, and are run by ``make twins``.
"""

from dataclasses import dataclass
from pathlib import Path

from birder.data.drawn import DrawnBirds, write_folder
from birder.files import write_text

WORLD = DrawnBirds(families=6, species=30, size=(96, 96), difficulty=0.4)
"""All species that there are."""
NATIVE = slice(0, None, 3)
"""Which of them live in the region."""
MANY = 60
"""Pictures of each species to learn from without labels, or in intermediate training."""
FEW = 6
"""Labelled pictures of each species of the region."""
UNSEEN = 30
"""Pictures of each of these to validate on."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Drawn birds, as CSV files."""

    everything: Path
    """Many pictures of all species."""
    abroad: Path
    """Those of them that show species from elsewhere."""
    few: Path
    """A few pictures of the species of the region."""
    unseen: Path
    """Other pictures of these, to validate on."""


def draw(folder: Path, *, workers: int = 1) -> Tables:
    """Draw the birds: 3,000 pictures, in a minute."""
    pictures = {
        split: write_folder(WORLD, folder / split, number, split=split, workers=workers)
        for split, number in (("many", MANY), ("few", FEW), ("unseen", UNSEEN))
    }
    names = {species.name for species in WORLD.species_list}
    native = {species.name for species in WORLD.species_list[NATIVE]}
    wanted = {
        "everything": ("many", names),
        "abroad": ("many", names - native),
        "few": ("few", native),
        "unseen": ("unseen", native),
    }
    tables = {}
    for table, (split, species) in wanted.items():
        tables[table] = folder / f"{table}.csv"
        rows = [(path.relative_to(folder), path.parent.name) for path in pictures[split] if path.parent.name in species]
        write_text(tables[table], "path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    return Tables(**tables)
