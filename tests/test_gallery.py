"""The figures of all networks are those of the networks, and the page shows them."""

import json
import runpy
from pathlib import Path

import pytest

from birder.errors import UnknownName
from birder.gallery import as_markdown, check_network_name, gallery, measure
from birder.networks import list_networks

# Multiply-adds in billions, and millions of parameters, as the papers (or torchvision, for RegNet) state them.
PUBLISHED = {
    "convnext_v2_atto": (0.55, 3.7),
    "convnext_v2_huge": (115, 660),
    "pvt_v2_b2": (4.0, 25.4),
    "pvt_v2_b5": (11.8, 82.0),
    "regnet_y_400m": (0.40, 4.34),
    "regnet_y_8g": (8.5, 39.4),
    "vit_b16": (17.6, 86.6),
}


def test_every_network_is_in_the_gallery() -> None:
    assert list(gallery()) == list_networks()


def test_figures_are_those_of_the_papers() -> None:
    for name, (multiply_adds, parameters) in PUBLISHED.items():
        assert gallery()[name].multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.03), name
        assert gallery()[name].parameters / 1e6 == pytest.approx(parameters, rel=0.01), name


def test_figures_are_those_of_the_networks() -> None:
    """One of each family; all of them take a minute."""
    smallest = {row.family: name for name, row in sorted(gallery().items(), key=lambda item: -item[1].parameters)}
    assert {name: measure(name) for name in smallest.values()} == {name: gallery()[name] for name in smallest.values()}


@pytest.mark.slow
def test_all_figures_are_those_of_the_networks() -> None:
    assert {name: measure(name) for name in gallery()} == gallery()


def test_the_page_is_what_the_command_writes(root: Path) -> None:
    introduction = runpy.run_path(str(root / "docs" / "gallery.py"))["INTRODUCTION"]
    assert (root / "docs" / "networks.md").read_text() == introduction + as_markdown(gallery())


def test_figures_equal_the_recorded_ones(shared: Path) -> None:
    """Default sizes and names, of every network that the record knows."""
    recorded = json.loads((shared / "spec" / "registered_networks.json").read_text())
    for name, row in gallery().items():
        assert list(row.default_size) == recorded[name]["default_size"], name


def test_a_mistyped_name_is_found_without_torch() -> None:
    check_network_name("ConvNeXt_v2_Atto")
    with pytest.raises(UnknownName, match="no network is called 'convnext_v2_ato'; did you mean convnext_v2_atto"):
        check_network_name("convnext_v2_ato")
