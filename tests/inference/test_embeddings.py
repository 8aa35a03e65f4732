"""A stream of embeddings: every picture has its own, and a bad file touches no other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.samples import read_samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, DataError
from birder.inference.embeddings import Embedded, embeddings, stacked
from birder.inference.rows import Row
from birder.networks import Network, create_network
from birder.signature import rgb_stats

STATS = rgb_stats("birder")
TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}


@pytest.fixture
def net() -> Network:
    return create_network("convnext_v2_atto", 3, size=(32, 32), **TINY)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = random.integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "1.png").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (4, 1)])
def test_every_picture_has_its_own(net: Network, pictures: Path, batch_size: int, workers: int) -> None:
    rows = list(embeddings(net, STATS, read_samples(pictures), batch_size=batch_size, workers=workers))
    assert len(rows) == 6 and net.training
    (failure,) = (row for row in rows if isinstance(row, Row))
    assert (failure.path, failure.reason) == (str(pictures / "a" / "1.png"), "not_an_image: not a picture")
    found = [row for row in rows if isinstance(row, Embedded)]
    assert [(Path(row.name).relative_to(pictures).as_posix(), row.label) for row in found] == [
        ("a/0.png", 0),
        ("a/2.png", 0),
        ("b/0.png", 1),
        ("b/1.png", 1),
        ("b/2.png", 1),
    ]
    transform = classification_transform((32, 32), STATS)
    for row in found:
        with torch.no_grad(), Image.open(row.name) as image:
            wanted = net.eval().embedding(transform(image)[None])[0]
        assert np.abs(row.embedding - wanted.numpy()).max() < 1e-5
    matrix, labels = stacked(rows, "cpu")
    assert matrix.shape == (5, 16) and labels.tolist() == [0, 0, 1, 1, 1]


def test_a_batch_of_nothing_but_failures(net: Network, pictures: Path) -> None:
    bad = read_samples(pictures).select([1])
    rows = list(embeddings(net, STATS, bad))
    assert [type(row) for row in rows] == [Row]
    with pytest.raises(DataError, match=r"none of 1 pictures can be read; .*1\.png: not_an_image: not a picture"):
        stacked(rows, "cpu")


def test_torchs_random_numbers_are_left_alone(net: Network, pictures: Path) -> None:
    before = torch.get_rng_state()
    list(embeddings(net, STATS, read_samples(pictures)))
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_use(net: Network, pictures: Path) -> None:
    samples = read_samples(pictures)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more and workers 0 or more, not 0 and 0"):
        embeddings(net, STATS, samples, batch_size=0)
    net.adjust_input_channels(1)
    with pytest.raises(ConfigError, match="pictures have 3 channels, this network takes 1"):
        embeddings(net, STATS, samples)
