"""A stream of probabilities: in order, whole, and the same however it is cut into batches and processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from birder.data import samples as samples_module
from birder.data.samples import Files, Samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, DataError, ModelFileError
from birder.inference.classes import class_names
from birder.inference.classification import infer_image
from birder.inference.rows import Row
from birder.inference.scores import Scores, scores
from birder.model_file import ModelInfo
from birder.model_file.calibration import Calibration
from birder.networks import Network, create_network

BAD = {1: "truncated", 4: "not_an_image", 6: "missing"}


def labelled(paths: list[Path]) -> Samples:
    return Samples(Files.at(paths), [0] * len(paths), {"a": 0})


def matrix(rows: Iterator[Scores | Row]) -> np.ndarray:
    """Rows of probabilities; one that could not be read is a row of -1."""
    return np.array([np.full(5, -1) if isinstance(row, Row) else row.probabilities for row in rows])


def test_rows_are_those_of_single_pictures_in_order(network: Network, info: ModelInfo, photos: list[Path]) -> None:
    rows = list(scores(network, info, labelled(photos)))
    assert [Path(row.path) for row in rows] == photos
    transform = classification_transform((32, 32), info.rgb_stats)
    for index, row in enumerate(rows):
        if index in BAD:
            assert isinstance(row, Row) and (row.status, row.code) == ("error", BAD[index])
            continue
        assert isinstance(row, Scores)
        assert np.abs(row.probabilities - infer_image(network, photos[index], transform)[0][0]).max() < 1e-6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
@pytest.mark.parametrize(("batch_size", "workers"), [(3, 0), (32, 0), (1, 1), (2, 2), (32, 3)])
def test_the_same_for_any_batches_and_workers(
    network: Network, info: ModelInfo, photos: list[Path], batch_size: int, workers: int
) -> None:
    many = labelled(photos * 3)
    wanted = matrix(scores(network, info, many, batch_size=1))
    found = matrix(scores(network, info, many, batch_size=batch_size, workers=workers))
    assert found.shape == (21, 5)
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(wanted[0] - wanted[2]).max() > 1e-3


def test_nothing_but_failures_and_nothing_at_all(network: Network, info: ModelInfo, photos: list[Path]) -> None:
    rows = list(scores(network, info, labelled([photos[4]] * 3), batch_size=2))
    assert [type(row) for row in rows] == [Row] * 3
    assert list(scores(network, info, labelled([]))) == []
    assert list(scores(network, info, labelled([]), workers=1)) == []


def test_no_number_is_a_failure_of_that_picture_alone(
    network: Network, info: ModelInfo, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = type(network).forward

    def broken(self: Network, x: torch.Tensor) -> torch.Tensor:
        logits = forward(self, x).clone()
        logits[1] = float("nan")
        return logits

    good = [photos[0], photos[2], photos[3]]
    wanted = matrix(scores(network, info, labelled(good)))
    monkeypatch.setattr(type(network), "forward", broken)
    rows = list(scores(network, info, labelled(good)))
    assert isinstance(rows[1], Row) and rows[1].code == "not_finite" and "NaN" in rows[1].reason
    assert np.abs(matrix(iter(rows))[[0, 2]] - wanted[[0, 2]]).max() == 0


def test_a_training_network_is_left_training(network: Network, info: ModelInfo, photos: list[Path]) -> None:
    wanted = matrix(scores(network, info, labelled(photos)))
    network.train()
    assert np.abs(matrix(scores(network, info, labelled(photos))) - wanted).max() == 0
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"batch_size": 0}, "batch_size"), ({"workers": -1}, "workers"), ({"device": "moon"}, "moon")],
)
def test_wrong_use_is_said_before_anything_is_read(
    network: Network, info: ModelInfo, options: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        scores(network, info, labelled([Path("untouched.jpg")]), **options)


def test_models_that_name_no_species(network: Network, info: ModelInfo) -> None:
    tiny = {"size": (32, 32), "in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
    with pytest.raises(ModelFileError, match="names 0 classes, but its network tells 5 apart"):
        class_names(network, {})
    with pytest.raises(ModelFileError, match="no classifier"):
        scores(create_network("convnext_v2_atto", 0, **tiny), info._replace(class_to_idx={}), labelled([]))
    with pytest.raises(ConfigError, match="3 channels, this network takes 1"):
        scores(create_network("convnext_v2_atto", 5, input_channels=1, **tiny), info, labelled([]))


def test_names_follow_the_labels(network: Network) -> None:
    shuffled = {"e": 4, "a": 0, "c": 2, "b": 1, "d": 3}
    assert class_names(network, shuffled) == ["a", "b", "c", "d", "e"]


def test_a_killed_worker_is_explained(
    network: Network, info: ModelInfo, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def killed(path: Path) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(samples_module, "read_image", killed)
    with pytest.raises(DataError, match="use fewer workers"):
        list(scores(network, info, labelled(photos), workers=1))


def test_no_memory_for_the_resized_picture(
    network: Network, info: ModelInfo, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    def refuse(self: Image.Image, *arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", refuse)
    (row,) = scores(network, info, labelled(photos[:1]))
    assert isinstance(row, Row) and row.reason == "memory: not enough memory to resize it"


def test_embeddings_and_calibration(network: Network, info: ModelInfo, photos: list[Path]) -> None:
    samples = labelled(photos)
    plain = list(scores(network, info, samples))
    found = info._replace(calibration=Calibration(temperature=2.0, pictures=10, data="00"))
    both = list(scores(network, found, samples, batch_size=3, embeddings=True))
    transform = classification_transform((32, 32), info.rgb_stats)
    for index, (row, other) in enumerate(zip(plain, both, strict=True)):
        if index in BAD:
            assert row == other
            continue
        assert isinstance(row, Scores) and isinstance(other, Scores) and other.embedding is not None
        logits, embedding = infer_image(network, photos[index], transform, return_embedding=True, return_logits=True)
        halved = np.exp(logits[0].astype(float) / 2)
        assert embedding is not None and row.embedding is None
        assert np.abs(other.embedding - embedding[0]).max() < 1e-5
        assert np.abs(other.probabilities - halved / halved.sum()).max() < 1e-6
        assert np.abs(other.probabilities - row.probabilities).max() > 1e-3
