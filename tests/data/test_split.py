"""``split``: shares, what stays together, equal results, and tables that are read back; ``pack`` beside it."""

import csv
import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data.drawn import DrawnBirds, write_folder
from birder.data.grouping import date_taken
from birder.data.images import read_image
from birder.data.pack import Encoded, pack
from birder.data.samples import read_samples
from birder.data.split import deal, split
from birder.errors import ConfigError, DataError

NAMES = ("Great Tit", 'W"ren, "é"', "Two\nLines", "Dunnock")


def empty_files(folder: Path, counts: dict[str, int], path: Callable[[int], str] = "{:03}.jpg".format) -> Path:
    for name, count in counts.items():
        for number in range(count):
            file = folder / name / path(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return folder


def members(folder: Path, part: str) -> list[tuple[Path, str]]:
    with open(folder / f"{part}.csv", encoding="utf-8", newline="") as file:
        return [(Path(os.path.abspath(folder / row["path"])), row["label"]) for row in csv.DictReader(file)]


def test_every_picture_is_in_one_part_and_classes_have_their_shares(tmp_path: Path) -> None:
    counts = dict(zip(NAMES, (100, 40, 10, 20), strict=True))
    source = empty_files(tmp_path / "in put", counts)
    result = split(source, tmp_path / "out" / "deep", val=0.1, test=0.2)
    found = {part: members(tmp_path / "out" / "deep", part) for part in ("train", "val", "test")}
    everything = sorted(path for part in found.values() for path, _ in part)
    assert everything == sorted(path for path in source.rglob("*.jpg"))
    assert all(path.parent.name == label for part in found.values() for path, label in part)
    for part, share in (("val", 0.1), ("test", 0.2)):
        assert Counter(label for _, label in found[part]) == {name: share * count for name, count in counts.items()}
        assert not result.missing[part]
    assert {name: len(indices) for name, indices in result.parts.items()} == {"train": 119, "val": 17, "test": 34}
    assert result.groups == 170


def test_the_tables_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(DrawnBirds(families=2, species=2, size=(32, 32)), tmp_path / "data", 5)
    (tmp_path / "data").rename(tmp_path / "line\nbreak, é")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path)
    split("link/../../line\nbreak, é", "link/tables", val=0.2)
    (tmp_path / "elsewhere").rename(tmp_path / "moved")  # the way to the pictures is as long from there
    train = read_samples("moved/deep/tables/train.csv")
    val = read_samples("moved/deep/tables/val.csv", train.class_to_idx)
    assert (len(train), len(val)) == (8, 2)
    assert [train.read(index).size for index in range(8)] == [(32, 32)] * 8
    assert train.class_to_idx == read_samples("line\nbreak, é").class_to_idx


def test_equal_names_and_seed_give_equal_tables(tmp_path: Path) -> None:
    counts = {"a": 30, "b": 25}
    for place in ("here", "other/place"):
        empty_files(tmp_path / place / "data", counts)
        for seed in (0, 1):
            split(tmp_path / place / "data", tmp_path / place / str(seed), seed=seed)
    texts = [(tmp_path / place / "val.csv").read_text() for place in ("here/0", "other/place/0", "here/1")]
    assert texts[0] == texts[1] != texts[2]
    random = np.random.default_rng(0)
    order = random.permutation(55)
    names, labels = [f"{number}.jpg" for number in range(55)], np.repeat([0, 1], [30, 25])
    groups = np.arange(55) // 3 * 3
    part = deal(labels, groups, names, val=0.2, test=0.1, seed=3)
    shuffled = deal(labels[order], groups[order], [names[index] for index in order], val=0.2, test=0.1, seed=3)
    assert (part[order] == shuffled).all()
    assert set(part) == {0, 1, 2}


def test_groups_stay_together_and_shares_are_near(tmp_path: Path) -> None:
    """Fifty cameras, each with several species."""
    random = np.random.default_rng(0)
    groups = random.integers(0, 50, 4000)
    labels = (groups + random.integers(0, 5, 4000)) % 10
    part = deal(labels, groups, [f"{number}.jpg" for number in range(4000)], val=0.15, test=0.1, seed=0)
    for group in range(50):
        assert len(set(part[groups == group])) == 1
    shares = [[float((part[labels == label] == number).mean()) for label in range(10)] for number in (1, 2)]
    assert np.abs(np.array(shares) - [[0.15], [0.1]]).max() < 0.09
    assert np.abs(np.mean(shares, axis=1) - [0.15, 0.1]).max() < 0.035


@pytest.mark.parametrize("largest", [1, 7, 20])
def test_a_share_is_missed_by_half_a_group_at_most(largest: int) -> None:
    """Where a group has pictures of one class only."""
    sizes = np.random.default_rng(0).integers(1, largest + 1, 200)
    groups, labels = np.repeat(np.arange(200), sizes), np.repeat(np.arange(200) % 3, sizes)
    part = deal(labels, groups, [f"{number}.jpg" for number in range(len(groups))], val=0.15, test=0.1, seed=0)
    for label in range(3):
        for number, share in ((1, 0.15), (2, 0.1)):
            missed = (part[labels == label] == number).sum() - share * (labels == label).sum()
            assert abs(missed) <= largest / 2


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 0), (3, 0), (4, 1), (14, 1), (16, 2), (40, 4)], ids=str)
def test_small_classes(count: int, expected: int) -> None:
    """One picture for validation from four on, then the share, rounded."""
    labels = np.repeat([0, 1], [count, 40])
    part = deal(labels, np.arange(len(labels)), [str(number) for number in range(len(labels))], val=0.1, test=0, seed=0)
    assert [int((part[labels == label] == 1).sum()) for label in (0, 1)] == [expected, 4]
    assert (part[labels == 0] == 0).any()


@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_a_training_picture(seed: int) -> None:
    """Even when validation is to have nearly all, and groups take whole classes with them."""
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2, 3])
    groups = np.array([0, 1, 1, 3, 4, 5, 6, 7, 8])
    part = deal(labels, groups, list("abcdefghi"), val=0.9, test=0.0, seed=seed)
    assert {0, 1, 2, 3} == set(labels[part == 0])
    assert (part == 1).any()


def test_a_class_without_validation_pictures_is_named(tmp_path: Path) -> None:
    empty_files(tmp_path / "data", {"rare": 2, "common": 30})
    result = split(tmp_path / "data", tmp_path / "out")
    assert result.missing == {"train": [], "val": ["rare"]}


def test_groups_by_folder_and_by_pattern(tmp_path: Path) -> None:
    source = empty_files(tmp_path / "data", {"a": 60, "b": 60}, lambda number: f"site{number % 12:02}/{number}.jpg")
    split(source, tmp_path / "parent", group="parent", val=0.2)
    split(source, tmp_path / "pattern", group=r"[ab]/site(\d\d)", val=0.2)
    parents = [{path.parent for path, _ in members(tmp_path / "parent", part)} for part in ("train", "val")]
    assert not parents[0] & parents[1] and len(parents[0] | parents[1]) == 24
    sites = [{path.parent.name for path, _ in members(tmp_path / "pattern", part)} for part in ("train", "val")]
    assert not sites[0] & sites[1] and len(sites[1]) in (2, 3)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_groups_by_a_column(tmp_path: Path, delimiter: str) -> None:
    empty_files(tmp_path / "data", {"a": 40, "b": 40})
    lines = [delimiter.join(("camera", "path", "label"))]
    lines += [
        delimiter.join((f"c{number % 8}" if number < 32 else "", f"data/{name}/{number:03}.jpg", name))
        for name in "ab"
        for number in range(40)
    ]
    (tmp_path / "all.csv").write_text("\n".join([*lines, "", ""]), encoding="utf-8-sig")
    result = split(tmp_path / "all.csv", tmp_path / "out", group="camera", val=0.25)
    found = [
        {int(path.stem) % 8 for path, _ in members(tmp_path / "out", part) if int(path.stem) < 32}
        for part in ("train", "val")
    ]
    assert found[1] and not found[0] & found[1]
    assert (result.groups, result.ungrouped) == (8 + 16, 16)
    with pytest.raises(ConfigError, match=r"'camra' is no column; did you mean camera.*has the columns camera"):
        split(tmp_path / "all.csv", tmp_path / "other", group="camra")


def test_groups_by_day(tmp_path: Path) -> None:
    write_folder(DrawnBirds(families=2, species=2, size=(32, 32), metadata=True), tmp_path / "data", 12)
    pictures = sorted((tmp_path / "data").rglob("*.jpg"))
    for number, path in enumerate(pictures):
        exif = Image.Exif()
        if number % 6 < 5:
            exif[0x0132] = f"2024:05:0{1 + number % 5} 12:0{number % 10}:00"
        with Image.open(path) as image:
            image.save(path, exif=exif)
    days = {path: date_taken(path.read_bytes()) for path in pictures}
    assert set(days.values()) == {None, *(f"2024-05-0{day}" for day in range(1, 6))}
    result = split(tmp_path / "data", tmp_path / "out", group="day", val=0.3)
    assert (result.groups, result.ungrouped) == (5 + 4, 4)
    found = [{days[path] for path, _ in members(tmp_path / "out", part)} - {None} for part in ("train", "val")]
    assert found[1] and not found[0] & found[1]


def test_the_day_of_damaged_files() -> None:
    assert date_taken(b"") is date_taken(b"\xff\xd8\xff no picture") is None


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    birds = DrawnBirds(families=2, species=2, size=(64, 64))
    for label in range(2):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for index in range(10):
            for copy, quality in enumerate((90, 50)):
                birds.draw(label, index).image.save(tmp_path / f"data/{label}/{index}-{copy}.jpg", quality=quality)
    (tmp_path / "data" / "0" / "broken.jpg").touch()
    result = split(tmp_path / "data", tmp_path / "out", near_duplicates=True, val=0.2)
    found = [{(label, path.stem[0]) for path, label in members(tmp_path / "out", part)} for part in ("train", "val")]
    assert not found[0] & found[1] and len(found[1]) == 4
    assert result.groups == 21
    assert result.unreadable == [(str(tmp_path / "data" / "0" / "broken.jpg"), "the file is empty")]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"val": -0.1}, "val and test must be 0 or more"),
        ({"val": 0.5, "test": 0.5}, "together above 0 and below 1"),
        ({"val": 0.0}, "together above 0"),
        ({"val": float("nan")}, "together above 0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"group": "camera"}, "'camera' is no column; there is no table with more columns"),
        ({"group": "parrent"}, "did you mean parent"),
        ({"group": r"(\d"}, "is no regular expression"),
        ({"group": r"site(\d+)"}, r"does not match 30 of 30 paths, such as 'a/000.jpg'"),
        ({"group": "parent"}, "val would have no pictures"),
    ],
    ids=str,
)
def test_what_is_refused(tmp_path: Path, options: dict, problem: str) -> None:
    source = empty_files(tmp_path / "data", {"a": 15, "b": 15})
    with pytest.raises((ConfigError, DataError), match=problem):
        split(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_tables_are_not_replaced(tmp_path: Path) -> None:
    source = empty_files(tmp_path / "data", {"a": 15, "b": 15})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.csv").write_text("precious")
    with pytest.raises(ConfigError, match=r"has a test\.csv already"):
        split(source, tmp_path / "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_a_name_that_no_table_can_hold(tmp_path: Path) -> None:
    source = empty_files(tmp_path / "data", {"a": 15, "b": 15})
    (source / "a" / os.fsdecode(b"\xe9.jpg")).touch()
    with pytest.raises(DataError, match="a table is UTF-8, and this name is not"):
        split(source, tmp_path / "out")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    write_folder(DrawnBirds(families=2, species=2, size=(60, 90)), tmp_path / "birds", 5)
    return tmp_path / "birds"


def test_packed_files_are_those_that_were_there(birds: Path, tmp_path: Path) -> None:
    """Read by the standard library and by ``read_samples``; an unreadable one is a row."""
    (birds / sorted(os.listdir(birds))[0] / 'a "b",\n.jpg').write_bytes(b"no picture")
    packed = pack(birds, tmp_path / "out", format="keep", shard_size=4)
    assert (packed.pictures, packed.lengths) == (10, [4, 4, 2])
    samples = [path.read_bytes() for path in sorted(birds.rglob("*.jpg")) if path.stat().st_size > 10]
    stored = []
    for path in packed.shards:
        with tarfile.open(path) as tar:
            stored += [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
    assert stored == samples
    read = read_samples(tmp_path / "out")
    originals = read_samples(birds)
    kept = [index for index in range(11) if "no picture" not in originals.content(index).decode("latin-1")]
    assert [read.content(index) for index in range(10)] == samples
    assert read.class_to_idx == originals.class_to_idx
    assert read.labels.tolist() == originals.labels[kept].tolist()
    with open(tmp_path / "out" / "failures.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"].endswith('a "b",\n.jpg'), row["reason"]) for row in rows] == [(True, "not a picture")]


@pytest.mark.parametrize("format", ["jpeg", "webp", "png"])
def test_packed_pictures_are_smaller_and_look_the_same(birds: Path, tmp_path: Path, format: str) -> None:
    pack(birds, tmp_path / "out", size=40, format=format, split_name="validation")  # type: ignore[arg-type]
    assert (tmp_path / "out" / "birds-validation-000000.tar").exists()
    originals, packed = read_samples(birds), read_samples(tmp_path / "out")
    for index in (0, 9):
        image = packed.read(index)
        assert image.size == (60, 40)
        expected = np.asarray(originals.read(index).resize((60, 40), Image.Resampling.LANCZOS), np.float64)
        assert np.abs(np.asarray(image) - expected).mean() < (1e-9 if format == "png" else 6)
        with Image.open(io.BytesIO(packed.content(index))) as file:
            assert file.format == format.upper()


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 200), (150, 100)), ((10, 1000), (10, 1000)), ((999, 300), (333, 100))]
)
def test_the_shorter_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    encode = Encoded(size=100, format="png")
    assert read_image(encode(Image.new("RGB", size))).size == expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"size": 0}, "must be 1 or more"), ({"quality": 101}, "quality 1 to 100"), ({"split_name": "a/b"}, "prefix")],
    ids=str,
)
def test_what_packing_refuses(birds: Path, tmp_path: Path, options: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        pack(birds, tmp_path / "out", **options)


def test_packing_needs_an_empty_folder_and_space(birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(ConfigError, match="out is not empty"):
        pack(birds, tmp_path / "out")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 20_000})())
    with pytest.raises(ConfigError, match=r"10 pictures will need about 0 MiB, and 0 MiB are free"):
        pack(birds, tmp_path / "new")
    assert not (tmp_path / "new").exists()
