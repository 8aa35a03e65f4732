"""Training batches: the same whatever reads them, and whole when files are not."""

import os
import signal

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from birder.data.augment import Views, training_transform
from birder.data.loader import TrainingSet, _start, collate, guarded, looked_at, training_batches
from birder.data.order import Key
from birder.data.samples import Files, Samples, read_samples
from birder.data.shards import write_shards
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
    return Samples(Files.at(paths), [number % 3 for number in range(12)], {"a": 0, "b": 1, "c": 2})


def stream(samples, *, start=0, stop=6, seed=5, **options):
    dataset = TrainingSet(samples, training_transform((16, 24), Augment(erase=0.5)), seed)
    return list(training_batches(dataset, batch_size=4, start=start, stop=stop, **options))


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels) and one.names == other.names
        for one, other in zip(first, second, strict=True)
    )


def test_pictures_are_bytes_of_the_asked_size(samples):
    batch = stream(samples)[0]
    assert batch.images.shape == (4, 3, 16, 24)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.shape == (4,)


@pytest.mark.parametrize("options", [{}, {"balance": 0.5, "repeats": 2, "rank": 1, "world": 2}], ids=["plain", "all"])
def test_the_stream_does_not_depend_on_the_workers(samples, options):
    alone = stream(samples, **options)
    assert same(alone, stream(samples, workers=1, **options))
    assert same(alone, stream(samples, workers=2, **options))


def test_the_stream_does_not_depend_on_the_number_of_processes(samples):
    whole = stream(samples, balance=1.0, repeats=2)
    parts = [stream(samples, balance=1.0, repeats=2, rank=rank, world=3, start=2) for rank in range(3)]
    for batch, *shares in zip(whole[2:], *parts, strict=True):
        assert [len(part.labels) for part in shares] == [2, 1, 1]
        assert torch.equal(torch.cat([part.images for part in shares]), batch.images)
        assert [name for part in shares for name in part.names] == batch.names


def test_a_process_without_a_share_gets_empty_batches(samples):
    (batch,) = stream(samples, stop=1, rank=4, world=5)
    assert len(batch.images) == len(batch.labels) == len(batch.names) == len(batch.unreadable) == 0


def test_names_and_labels_belong_to_the_pictures(samples):
    numbers = {samples.name(number): number for number in range(12)}
    for batch in stream(samples):
        assert batch.labels.tolist() == [numbers[name] % 3 for name in batch.names]


def test_repeated_pictures_are_varied_each_time(samples):
    batch = stream(samples, stop=1, repeats=2)[0]
    assert batch.names[:2] == batch.names[2:]
    assert len({image.numpy().tobytes() for image in batch.images}) == 4


def test_the_random_numbers_of_a_picture_start_where_they_always_did():
    """Recorded; a change would break the resuming of runs that began before it."""
    assert [_start(5, Key(3, 7)), _start(2**40, Key(3, 7)), _start(5, Key(3, 7, 1))] == [
        1804240874,
        2731467027,
        405645065,
    ]


def test_the_stream_from_shards_is_that_from_files(samples, tmp_path):
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=5)
    packed = read_samples(tmp_path / "shards")
    for workers in (0, 2):
        for one, other in zip(stream(samples), stream(packed, workers=workers), strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


@pytest.mark.gpu
def test_pinned_batches_are_the_same(samples):
    batches = stream(samples, pin_memory=True, workers=1)
    assert all(batch.images.is_pinned() and batch.labels.is_pinned() for batch in batches)
    assert same(batches, stream(samples))


def test_pinning_keeps_all_of_a_batch(samples, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    batch = stream(samples)[0]
    assert same([batch.pin_memory()], [batch])


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
    with_broken = Samples(Files.at([*samples.paths[:3], broken]), samples.labels[:4], samples.class_to_idx)
    (batch,) = stream(with_broken, stop=1)
    assert len(batch.images) == len(batch.labels) == 3
    assert [path for path, _ in batch.unreadable] == [str(broken)]
    assert batch.unreadable[0][1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_one_readable_file_is_an_empty_one(tmp_path, workers):
    missing = Samples(Files.at([tmp_path / "a.jpg"] * 4), [0, 1, 0, 1], {"a": 0, "b": 1})
    (batch,) = stream(missing, stop=1, workers=workers)
    assert len(batch.images) == len(batch.labels) == 0
    assert batch.unreadable == [(str(tmp_path / "a.jpg"), "missing: no such file")] * 4


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


def views_of(samples, seed=5):
    large = training_transform((16, 24), Augment(policy="birder", min_scale=0.3))
    return TrainingSet(samples, Views(large, 2, training_transform((8, 8), Augment(), scale=(0.1, 0.5)), 3), seed)


def same_views(first, second):
    return same(first, second) and all(
        torch.equal(one.small, other.small) for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_a_picture_come_together(samples, workers):
    batches = list(training_batches(views_of(samples), batch_size=4, start=0, stop=4, workers=workers))
    assert [tuple(batch.images.shape) for batch in batches] == [(4, 2, 3, 16, 24)] * 4
    assert [tuple(batch.small.shape) for batch in batches] == [(4, 3, 3, 8, 8)] * 4
    assert batches[0].small.dtype == batches[0].images.dtype == torch.uint8
    assert same_views(batches, list(training_batches(views_of(samples), batch_size=4, start=0, stop=4)))
    assert same_views(batches[2:], list(training_batches(views_of(samples), batch_size=4, start=2, stop=4)))
    for batch in batches:
        assert not torch.equal(batch.images[:, 0], batch.images[:, 1])


def test_pinning_keeps_small_views(samples, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    (batch,) = training_batches(views_of(samples), batch_size=4, start=0, stop=1)
    pinned = batch.pin_memory()
    assert same_views([pinned], [batch])
    assert pinned.small is not batch.small


def test_unreadable_pictures_are_left_out_of_all_views():
    def look(value):
        return torch.full((2, 3, 4, 4), value).byte(), torch.full((1, 3, 2, 2), value + 1).byte()

    batch = collate([("a", "missing: no such file"), (look(1), 7, "b"), ("c", "the file is empty"), (look(5), 8, "d")])
    assert batch.images[:, 0, 0, 0, 0].tolist() == [1, 5] and batch.images.shape == (2, 2, 3, 4, 4)
    assert batch.small[:, 0, 0, 0, 0].tolist() == [2, 6] and batch.small.shape == (2, 1, 3, 2, 2)
    assert (batch.labels.tolist(), batch.names) == ([7, 8], ["b", "d"])
    assert batch.unreadable == [("a", "missing: no such file"), ("c", "the file is empty")]
    nothing = collate([("a", "missing: no such file")])
    assert (len(nothing.images), len(nothing.labels), nothing.small, nothing.names) == (0, 0, None, [])
    plain = collate([(torch.zeros(3, 4, 4).byte(), 1, "x")])
    assert plain.images.shape == (1, 3, 4, 4) and plain.small is None


def test_samples_are_looked_at_in_order_and_each_epoch_otherwise(samples):
    dataset = TrainingSet(samples, training_transform((16, 24), Augment()), seed=0)
    batches = list(looked_at(dataset, [3, 1, 2, 0, 11], batch_size=2))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert [name for batch in batches for name in batch.names] == [samples.name(row) for row in (3, 1, 2, 0, 11)]
    assert same(batches, list(looked_at(dataset, iter([3, 1, 2, 0, 11]), batch_size=2, workers=1)))
    other = list(looked_at(dataset, [3, 1, 2, 0, 11], batch_size=2, epoch=1))
    assert [batch.names for batch in other] == [batch.names for batch in batches]
    assert not any(torch.equal(a.images, b.images) for a, b in zip(batches, other, strict=True))
    (alone,) = looked_at(dataset, [1])
    assert torch.equal(alone.images[0], batches[0].images[1]), "a look does not depend on the others"
    assert list(looked_at(dataset, [])) == []


def test_looking_at_samples_leaves_out_what_cannot_be_read(samples, tmp_path):
    paths = [samples.paths[0], tmp_path / "gone.jpg", samples.paths[1]]
    dataset = TrainingSet(
        Samples(Files.at(paths), [0, 1, 2], samples.class_to_idx), training_transform((8, 8), Augment()), 0
    )
    (batch,) = looked_at(dataset, range(3))
    assert batch.labels.tolist() == [0, 2] and len(batch.images) == 2
    assert batch.unreadable == [(str(tmp_path / "gone.jpg"), "missing: no such file")]
