"""Measure every registered network, and write birder/gallery.json and docs/networks.md. ``make gallery`` runs this."""

from pathlib import Path

from birder.files import write_text
from birder.gallery import NUM_CLASSES, as_json, as_markdown, measure
from birder.networks import list_networks

ROOT = Path(__file__).resolve().parents[1]
INTRODUCTION = f"""# The networks

Every name that `birder.create_network` and `--network` take; `birder networks` lists them too. Parameters and
multiply-adds (for one picture of the default size) are those of a network with {NUM_CLASSES} classes. This page is
written by `make gallery`.

"""


def main() -> None:
    """Write both files."""
    figures = {name: measure(name) for name in list_networks()}
    write_text(ROOT / "birder" / "gallery.json", as_json(figures))
    write_text(ROOT / "docs" / "networks.md", INTRODUCTION + as_markdown(figures))


if __name__ == "__main__":
    main()
