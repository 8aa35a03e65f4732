"""The networks in figures, read without torch: how large, how much work, how long the embedding.

``gallery.json`` beside this file and docs/networks.md are written by ``make gallery``.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from birder.errors import UnknownName, suggestion

NUM_CLASSES = 1000
"""Classes of the networks that were measured."""
_FILE = Path(__file__).with_name("gallery.json")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A registered network in figures."""

    family: str
    """Architecture, the name of its class."""
    parameters: int
    """With a classifier of 1000 classes."""
    multiply_adds: int
    """Multiplications with an addition for one picture of the default size."""
    embedding_size: int
    """Numbers of an embedding."""
    default_size: tuple[int, int]
    """(height, width) in pixels."""


@cache
def gallery() -> dict[str, Figures]:
    """Every registered network by name, in the order of registration."""
    rows = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: Figures(**{**row, "default_size": tuple(row["default_size"])}) for name, row in rows.items()}


def check_network_name(name: str) -> None:
    """Find a mistyped name before torch is loaded, which takes seconds.

    Raises:
        UnknownName: No such network; near misses are suggested.
    """
    if name.lower() not in gallery():
        raise UnknownName(f"no network is called {name!r}{suggestion(name.lower(), gallery())}")


def measure(name: str) -> Figures:
    """Build a network without memory for its weights, and count.

    Raises:
        UnknownName: No network of that name.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from birder.networks import create_network

    with torch.device("meta"), torch.no_grad():
        network = create_network(name, NUM_CLASSES).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, network.input_channels, *network.size))
    return Figures(
        family=type(network).__name__,
        parameters=sum(weight.numel() for weight in network.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        embedding_size=network.embedding_size,
        default_size=network.size,
    )


def as_json(figures: dict[str, Figures]) -> str:
    """The text of ``gallery.json``, one network per line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(asdict(row))}" for name, row in figures.items())
    return f"{{\n{rows}\n}}\n"


def as_markdown(figures: dict[str, Figures]) -> str:
    """Tables of the networks, one for each family."""
    families: dict[str, list[str]] = {}
    for name, row in figures.items():
        size = "{} x {}".format(*row.default_size)
        families.setdefault(row.family, []).append(
            f"| `{name}` | {row.parameters / 1e6:.2f} | {row.multiply_adds / 1e9:.2f} | {row.embedding_size} | {size} |"
        )
    head = "| network | parameters (M) | multiply-adds (G) | embedding | default size |\n"
    head += "| --- | ---: | ---: | ---: | --- |"
    return "\n".join(f"## {family}\n\n{head}\n" + "\n".join(rows) + "\n" for family, rows in families.items())
