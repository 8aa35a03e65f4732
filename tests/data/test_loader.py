"""Training batches: the same whatever reads them, and whole when files are not."""

import os
import signal

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from birder.data.augment import training_transform
from birder.data.loader import TrainingSet, guarded, training_batches
from birder.data.samples import Samples
from birder.errors import DataError
from birder.training.recipe import Augment


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number in range(12):
        pixels = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return Samples(paths=paths, labels=[number % 3 for number in range(12)], class_to_idx={"a": 0, "b": 1, "c": 2})


def stream(samples, *, workers=0, start=0, stop=6, seed=5):
    transform = training_transform((16, 24), Augment(erase=0.5))
    return list(
        training_batches(TrainingSet(samples, transform, seed), batch_size=4, start=start, stop=stop, workers=workers)
    )


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        for one, other in zip(first, second, strict=True)
    )


def test_pictures_are_bytes_of_the_asked_size(samples):
    batch = stream(samples)[0]
    assert batch.images.shape == (4, 3, 16, 24)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.shape == (4,)


def test_the_stream_does_not_depend_on_the_workers(samples):
    alone = stream(samples)
    assert same(alone, stream(samples, workers=1))
    assert same(alone, stream(samples, workers=2))


def test_the_stream_can_be_entered_anywhere(samples):
    assert same(stream(samples)[2:], stream(samples, start=2))


def test_every_epoch_varies_the_pictures_anew(samples):
    batches = stream(samples)
    seen = {}
    for batch in batches:
        for image, label in zip(batch.images, batch.labels, strict=True):
            seen.setdefault(int(label), []).append(image)
    assert len({image.numpy().tobytes() for images in seen.values() for image in images}) == 24
    assert not same(batches, stream(samples, seed=6))


def test_reading_does_not_disturb_the_random_numbers_of_the_network(samples):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    stream(samples)
    assert torch.equal(torch.rand(4), expected)


def test_an_unreadable_file_is_left_out_and_told(samples, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with_broken = Samples(
        paths=[*samples.paths[:3], broken], labels=samples.labels[:4], class_to_idx=samples.class_to_idx
    )
    (batch,) = stream(with_broken, stop=1)
    assert len(batch.images) == len(batch.labels) == 3
    assert [path for path, _ in batch.unreadable] == [str(broken)]
    assert batch.unreadable[0][1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_one_readable_file_is_an_empty_one(tmp_path, workers):
    missing = Samples(paths=[tmp_path / "a.jpg"] * 4, labels=[0, 1, 0, 1], class_to_idx={"a": 0, "b": 1})
    (batch,) = stream(missing, stop=1, workers=workers)
    assert len(batch.images) == len(batch.labels) == 0
    assert batch.unreadable == [(str(tmp_path / "a.jpg"), "no such file")] * 4


def test_reading_leaves_the_numbers_of_other_devices_alone(samples, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    stream(samples)
    assert calls == []


class Killed(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_an_error_that_says_what_can_be_done():
    with pytest.raises(DataError, match="was killed, most often because memory ran out: use fewer workers"):
        list(guarded(DataLoader(Killed(), num_workers=1)))
