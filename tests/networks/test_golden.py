"""The weights' names and shapes are file format, and the numbers may not move: both are written down here.

A new architecture adds two files, written by

    python tests/networks/test_golden.py keys NAME > tests/golden/keys/NAME.txt
    python tests/networks/test_golden.py outputs NAME > tests/golden/outputs/NAME.txt
"""

import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from birder.networks import Network, create_network, networks

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NAMES = [path.stem for path in sorted((GOLDEN / "keys").glob("*.txt"))]


def noise(word: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Uniform numbers of mean 0 and variance 1 that hang on the word alone, not on any library's version."""
    raw = np.random.PCG64(zlib.crc32(word.encode())).random_raw(math.prod(shape)) >> np.uint64(40)
    return ((raw + 0.5) * (2 * math.sqrt(3) / 2**24) - math.sqrt(3)).reshape(shape).astype(np.float32)


@torch.no_grad()
def lively(name: str) -> Network:
    """A network of 10 classes whose weights are noise, scaled so that signals neither die nor grow."""
    network = create_network(name, 10, size=(64, 64)).eval()
    for key, weight in network.named_parameters():
        values = torch.from_numpy(noise(key, tuple(weight.shape)))
        fan_in = math.prod(weight.shape[1:])
        weight.copy_(values / math.sqrt(fan_in) if key.endswith("weight") and weight.dim() > 1 else 1 + 0.1 * values)
    return network


@torch.no_grad()
def outputs(name: str) -> list[float]:
    """The first eight logits of a picture of noise."""
    logits: list[float] = lively(name)(torch.from_numpy(noise("picture", (1, 3, 64, 64))))[0, :8].tolist()
    return logits


def keys(name: str) -> list[str]:
    """Name and shape of each weight."""
    with torch.device("meta"):
        state = create_network(name, 10).state_dict()
    return [" ".join(map(str, (key, *weight.shape))) for key, weight in state.items()]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_every_architecture_is_written_down() -> None:
    assert {cls for cls, _ in networks.values()} == {networks[name][0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_the_weights(name: str) -> None:
    assert keys(name) == lines(GOLDEN / "keys" / f"{name}.txt")


@pytest.mark.parametrize("name", NAMES)
def test_outputs(name: str) -> None:
    expected = [float(line) for line in lines(GOLDEN / "outputs" / f"{name}.txt")]
    # Measured: without oneDNN 1.2e-6 off, in float64 6e-7, with the tanh form of GELU 1.1e-4.
    assert outputs(name) == pytest.approx(expected, rel=0, abs=3e-5)


if __name__ == "__main__":
    what, name = sys.argv[1:]
    rows = keys(name) if what == "keys" else [f"{value:.7g}" for value in outputs(name)]
    sys.stdout.write("".join(f"{row}\n" for row in rows))
