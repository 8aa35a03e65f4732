"""The published model cards, to the letter: each Python block of each card runs unchanged and gives what it promises.

The files themselves are not here: for each card a file in the published form is made, with random weights, the card's
classes and its size, and a server on this computer that speaks the addresses of the hub offers it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from birder.catalogue import find
from birder.data.drawn import DrawnBirds
from birder.data.transforms import classification_transform
from birder.networks import Network, create_network
from birder.signature import RGBStats
from tests.loopback import Loopback, add_to_catalogue, server

__all__ = ["server"]

OLD_PRESET: RGBStats = {"mean": (0.5248, 0.5372, 0.5086), "std": (0.2135, 0.2103, 0.2622)}
CENTERED: RGBStats = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# Weights of a ViT as they were called before version 0.4.
OLD_NAMES = (
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
)

# Runs the blocks of a card one after the other, each with names of its own, and writes down what they leave.
SCRIPT = """
import contextlib, io, json
from pathlib import Path
import numpy, torch
found = []
for number, block in enumerate(json.loads(Path("blocks.json").read_text())):
    names, out = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block, f"block {number}", "exec"), names)
    arrays = {name: value for name, value in names.items() if isinstance(value, numpy.ndarray)}
    numpy.savez(f"{number}.npz", **arrays)
    net = names["net"]
    found.append({
        "printed": out.getvalue(),
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "training": net.training or any(weight.requires_grad for weight in net.parameters()),
        "classes": len(names["model_info"].class_to_idx),
    })
Path("found.json").write_text(json.dumps(found))
"""


@dataclass(frozen=True)
class Written:
    """What the file of a card is known to be: its writer's version, its colour statistics, its names of weights."""

    birder_version: str
    rgb_stats: RGBStats
    old_names: tuple[tuple[str, str], ...] = ()


CARDS = {
    "convnext_v2_tiny_intermediate-il-common": Written("v0.0.6a6", OLD_PRESET),
    "pvt_v2_b2_mmcr-il-all": Written("v0.0.8a14", OLD_PRESET),
    "regnet_y_8g_intermediate-eu-common": Written("v0.0.6a0", OLD_PRESET),
    "vit_parallel_s16_18x2_ls_avg_data2vec-intermediate-arabian-peninsula": Written("v0.0.10a5", CENTERED),
    "vit_l16_mim-eu-common": Written("v0.0.6a22", OLD_PRESET, OLD_NAMES),
}
LARGE = {"vit_l16_mim-eu-common"}


@dataclass(frozen=True)
class Card:
    """A card, and what it says."""

    name: str
    text: str

    @property
    def blocks(self) -> list[str]:
        return re.findall(r"^```python\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)

    @property
    def size(self) -> tuple[int, int]:
        height, width = map(int, self._says(r"Input image size: (\d+) x (\d+)"))
        return height, width

    @property
    def num_classes(self) -> int:
        return int(self._says(r"\*\*Dataset:\*\* [\w-]+ \((\d+) classes\)")[0])

    @property
    def millions(self) -> str:
        """Parameters, as the card rounds them."""
        return self._says(r"Params \(M\): ([\d.]+)")[0]

    def _says(self, pattern: str) -> tuple[str, ...]:
        match = re.search(pattern, self.text)
        assert match, pattern
        return match.groups()


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CARDS])
def card(request: pytest.FixtureRequest, shared: Path) -> Card:
    return Card(request.param, (shared / "spec" / "cards" / f"{request.param}.md").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of a gigabyte, which pytest would keep."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def a_network(card: Card) -> Network:
    """The network of a card with random weights, and a classifier that is sure of itself."""
    net = create_network(find(card.name).network, card.num_classes, size=card.size)
    torch.nn.init.normal_(net.classifier.weight, std=3 / net.embedding_size**0.5)
    return net.eval()


def old_name(name: str, written: Written) -> str:
    for pattern, replacement in written.old_names:
        name = re.sub(pattern, replacement, name)
    return name


def write_published(path: Path, card: Card, net: Network) -> None:
    """A file in the published form, as the older package wrote it."""
    written = CARDS[card.name]
    entries: dict[str, Any] = {
        "state": OrderedDict((old_name(name, written), tensor) for name, tensor in net.state_dict().items()),
        "birder_version": written.birder_version,
        "task": "image_classification",
        "class_to_idx": {f"Species {label:03}": label for label in range(card.num_classes)},
        "signature": {
            "inputs": [{"data_shape": [0, 3, *card.size]}],
            "outputs": [{"data_shape": [0, card.num_classes]}],
        },
        "rgb_stats": written.rgb_stats,
    }
    torch.save(entries, path)


def outputs(card: Card, net: Network, image: Image.Image) -> tuple[Tensor, Tensor]:
    """Embedding and probabilities of a picture."""
    with torch.inference_mode():
        embedding = net.embedding(classification_transform(card.size, CARDS[card.name].rgb_stats)(image)[None])
        return embedding, net.classify(embedding).softmax(dim=1)


def run_blocks(card: Card, folder: Path, root: Path, server: Loopback) -> list[dict[str, Any]]:
    """Run the blocks of a card in a process of its own; what each leaves, with its arrays under ``arrays``."""
    (folder / "blocks.json").write_text(json.dumps(card.blocks), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "BIRDER_"))}
    environment |= {
        "BIRDER_HOME": str(folder / "home"),
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return [row | {"arrays": dict(np.load(folder / f"{number}.npz"))} for number, row in enumerate(found)]


def test_a_card_runs(card: Card, folder: Path, root: Path, server: Loopback) -> None:
    net = a_network(card)
    write_published(folder / "file.pt", card, net)
    path = f"/birder-project/{card.name}/resolve/main/{card.name}.pt"
    entry, digest = find(card.name), server.publish(path, folder / "file.pt")
    facts = {"network": entry.network, "resolution": entry.resolution, "url": entry.url}
    add_to_catalogue(folder / "home", card.name, sha256=digest, mib=entry.file("pt").file_size, **facts)
    picture = folder / "path" / "to" / "image.jpeg"
    picture.parent.mkdir(parents=True)
    DrawnBirds(size=(300, 240)).draw(0, 0).image.save(picture)

    found = run_blocks(card, folder, root, server)

    embedding, probabilities = outputs(card, net, Image.open(picture))
    assert len(server.gets(path)) == 1  # it is in the cache from the second block on
    assert len(found) == 3
    promised = 0
    for block, left in zip(card.blocks, found, strict=True):
        assert f"{left['parameters'] / 1e6:.1f}" == card.millions
        assert left["classes"] == card.num_classes
        assert not left["training"]
        for name, shape in re.findall(r"^# (\w+) is a NumPy array with shape of \(([\d, ]+)\)", block, re.MULTILINE):
            assert left["arrays"][name].shape == tuple(map(int, shape.split(",")))
            assert left["arrays"][name].dtype == np.float32
            promised += 1
        if "out" in left["arrays"]:
            assert left["arrays"]["out"].sum() == pytest.approx(1.0, abs=1e-5)
            np.testing.assert_allclose(left["arrays"]["out"], probabilities, atol=0.02)
        if "embedding" in left["arrays"]:
            np.testing.assert_allclose(left["arrays"]["embedding"], embedding, atol=0.1 * float(embedding.std()))
        example = re.search(r"^# Output example:\n((?:# .*\n)+)", block, re.MULTILINE)
        expected = re.sub(r"^# ", "", example[1], flags=re.MULTILINE) if example else ""
        assert "".join(left["printed"].split()) == "".join(expected.split())
        promised += bool(example)
    assert promised == 3
