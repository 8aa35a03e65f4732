"""What ``check`` finds, and the search for similar pictures beneath it."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from birder.data import processes
from birder.data.check import Findings, Limits, _Closest, check, similar_names
from birder.data.check_report import write_check
from birder.data.drawn import DrawnBirds
from birder.data.duplicates import FINGERPRINT, Groups, Pairs, fingerprints, near_groups, near_pairs
from birder.data.hashing import hamming_pairs, mirrored, perceptual_hash, similarity
from birder.data.images import read_image
from birder.data.samples import read_samples
from birder.errors import ConfigError, DataError

BIRDS = DrawnBirds(families=2, species=4, size=(96, 120))


def bird(label: int, index: int) -> Image.Image:
    return BIRDS.draw(label, index).image


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return read_image(file.getvalue())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label, name in enumerate(("Dunnock", "Wren")):
        for index in range(3):
            save(tmp_path / "train" / name / f"{index}.png", bird(label, index))
        save(tmp_path / "val" / name / "9.png", bird(label, 9))
    return tmp_path


def run(data: Path, *, limits: Limits | None = None, workers: int = 0) -> Findings:
    return check([data / "train", data / "val"], limits=limits or Limits(few=0), workers=workers)


def pairs_of(rows: list, data: Path) -> list[tuple[str, str]]:
    return [
        (Path(r.place.path).relative_to(data).as_posix(), Path(r.other.path).relative_to(data).as_posix()) for r in rows
    ]


def test_nothing_wrong(data: Path) -> None:
    findings = run(data)
    assert not any(findings.counts().values())
    assert [(row.name, row.pictures) for row in findings.classes] == [("Dunnock", (3, 1)), ("Wren", (3, 1))]


def test_every_kind_of_finding(data: Path) -> None:
    train, val = data / "train", data / "val"
    (train / "Wren" / "broken.jpg").write_bytes(b"no picture")
    (train / "Wren" / "copy.png").write_bytes((train / "Wren" / "1.png").read_bytes())
    save(train / "Wren" / "small.jpg", bird(1, 2).resize((80, 64)), quality=60)
    save(val / "Wren" / "leak.png", ImageOps.mirror(bird(1, 0)))
    (val / "Wren" / "same.png").write_bytes((train / "Wren" / "2.png").read_bytes())
    save(val / "Dunnock" / "mixed.jpg", bird(1, 9))
    save(train / "wren" / "tiny.png", bird(2, 0).resize((20, 90)))
    save(val / "Robin" / "grey.png", Image.new("RGB", (100, 100), (90, 90, 90)))
    findings = run(data, limits=Limits(few=2))
    assert [(row.place.path, row.reason) for row in findings.unreadable] == [
        (str(train / "Wren" / "broken.jpg"), "not a picture")
    ]
    assert pairs_of(findings.duplicates, data) == [("train/Wren/copy.png", "train/Wren/1.png")]
    near = [("train/Wren/small.jpg", "train/Wren/2.png"), ("val/Wren/9.png", "val/Dunnock/mixed.jpg")]
    assert pairs_of(findings.near_duplicates, data) == near
    leaks = [("val/Wren/leak.png", "train/Wren/0.png"), ("val/Wren/same.png", "train/Wren/2.png")]
    assert pairs_of(findings.leaks, data) == leaks
    assert [(row.mirrored, row.same_file) for row in findings.leaks] == [(True, False), (False, True)]
    assert pairs_of(findings.mixed_labels, data) == near[1:]
    assert [(row.height, row.width, row.problem) for row in findings.odd] == [
        (90, 20, "tiny, extreme proportions"),
        (100, 100, "no contrast"),
    ]
    assert [row.name for row in findings.few] == ["Robin", "wren"]
    assert findings.similar_names == [("Wren", "wren")]
    assert findings.not_in_first == ["Robin"]


def test_the_closest_picture_before_it_is_named(data: Path) -> None:
    """Also among many that are alike, each later picture has one row."""
    for number, quality in enumerate((95, 80, 60, 40)):
        save(data / "train" / "Wren" / f"a{number}.jpg", bird(1, 7), quality=quality)
    rows = run(data).near_duplicates
    assert [Path(row.place.path).name for row in rows] == ["a1.jpg", "a2.jpg", "a3.jpg"]
    assert all(Path(row.other.path).name < Path(row.place.path).name for row in rows)


def test_workers_change_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_FEWEST", 1)
    save(data / "val" / "Wren" / 'a "leak"\nof «Tits» é.png', bird(1, 0))
    (data / "train" / "Wren" / "broken.jpg").touch()
    seen: list[tuple[int, int]] = []
    alone, together = run(data), check([data / "train", data / "val"], limits=Limits(few=0), workers=2)
    check([data / "train", data / "val"], progress=lambda *numbers: seen.append(numbers))
    for name in ("unreadable", "leaks", "odd"):
        assert getattr(alone, name) == getattr(together, name)
    assert alone.leaks and alone.unreadable[0].reason == "the file is empty"
    assert seen == [(number, 10) for number in range(1, 11)]


def test_the_report(data: Path, tmp_path: Path) -> None:
    save(data / "val" / "Wren" / 'a "leak",\nof é.png', ImageOps.mirror(bird(1, 0)))
    findings = run(data, limits=Limits(few=4))
    write_check(tmp_path / "new" / "report", findings)
    folder = tmp_path / "new" / "report"
    kinds = {"unreadable", "duplicates", "near_duplicates", "leaks", "mixed_labels", "odd", "classes"}
    assert {path.name for path in folder.iterdir()} == {"report.json", "alike.png", *(f"{kind}.csv" for kind in kinds)}
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["pictures"] == [6, 3] and report["counts"] == findings.counts()
    for kind in kinds:
        with open(folder / f"{kind}.csv", encoding="utf-8", newline="") as file:
            assert list(csv.DictReader(file)) == report[kind]
    leak = report["leaks"][0]
    assert leak["path"].endswith('a "leak",\nof é.png') and leak["other_path"].endswith("0.png")
    assert (leak["bits"], leak["mirrored"], leak["same_file"], leak["label"]) == ("0", "yes", "no", "Wren")
    assert report["classes"][0]["few"] == "no" and report["classes"][0]["label"] == "Dunnock"
    with Image.open(folder / "alike.png") as sheet:
        # One row of two tiles, 224 pixels wide: the earlier picture, then the one that is like it.
        tiles = [sheet.crop((left, 61, left + 224, 240)).resize((16, 16)).convert("L") for left in (12, 248)]
    expected = [image.resize((16, 16)).convert("L") for image in (bird(1, 0), ImageOps.mirror(bird(1, 0)))]
    shown, wanted = (np.stack([np.asarray(image) for image in images]) for images in (tiles, expected))
    assert similarity(shown, wanted).min() > 0.98 > similarity(shown, wanted[::-1]).max()
    (data / "val" / "Wren" / 'a "leak",\nof é.png').unlink()
    write_check(folder, run(data))
    assert not (folder / "alike.png").exists()


def test_a_report_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="the report cannot be written: Not a directory"):
        write_check(tmp_path / "file" / "report", run(data))


@pytest.mark.parametrize("limits", [{"few": -1}, {"proportions": 0.5}, {"distance": 13}], ids=str)
def test_limits_that_make_no_sense(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Limits(**limits)


def test_sources_that_cannot_be_used(data: Path) -> None:
    with pytest.raises(ConfigError, match="at least one source"):
        check([])
    with pytest.raises(DataError, match="no such file or folder"):
        check([data / "train", data / "nothing"])
    with pytest.raises(ConfigError, match="workers must be 0 or more"):
        check([data / "train"], workers=-1)


def test_names_that_differ_in_little_only() -> None:
    names = ["Anna's Hummingbird", "Anna’s hummingbird", "Blue Tit", "Blue-Tit", "blue_tit", "Great Tit", "!", "?"]  # noqa: RUF001
    assert similar_names(names) == [tuple(names[:2]), tuple(names[2:5])]
    assert similar_names(["Ｗren", "Wren", "Wren 2"]) == [("Ｗren", "Wren")]  # noqa: RUF001


def brute_force(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    values = hashes.tolist()
    return [
        (one, two, bits)
        for one in range(len(values))
        for two in range(one + 1, len(values))
        if (bits := (values[one] ^ values[two]).bit_count()) <= radius
    ]


def found(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    return sorted(
        row for part in hamming_pairs(hashes, radius) for row in zip(*(c.tolist() for c in part), strict=True)
    )


@given(st.integers(0, 12), st.integers(0, 3), st.integers(0, 2**32), st.integers(0, 60))
def test_the_search_finds_what_comparing_each_with_each_finds(radius: int, same: int, seed: int, count: int) -> None:
    """Whatever number of pieces is chosen; every pair once."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count // 3 + 1, np.uint64)[random.integers(0, count // 3 + 1, count)]
    for _ in range(random.integers(0, 9)):
        hashes = hashes ^ (np.uint64(1) << random.integers(0, 64, count, np.uint64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("birder.data.hashing._pieces_in_common", lambda count, radius: max(same, radius == 0))
        assert found(hashes, radius) == brute_force(hashes, radius)


def test_the_search_among_thousands() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 30_000, np.uint64)
    flips = [random.choice(64, size, replace=False) for size in (0, 3, 8, 9)]
    changed = [hashes[7] ^ np.bitwise_or.reduce(np.uint64(1) << flip.astype(np.uint64), initial=0) for flip in flips]
    assert found(np.append(hashes, changed), 8)[:3] == [(7, 30_000, 0), (7, 30_001, 3), (7, 30_002, 8)]


def test_the_hash_is_the_signs_of_the_cosine_transform() -> None:
    """Against scipy, which scikit-learn brings; and that of the mirror image follows from it."""
    transform = pytest.importorskip("scipy.fft").dctn
    image = bird(0, 0).resize((32, 32))
    frequencies = transform(np.asarray(image.convert("L"), np.float64))
    places = [(row, column) for row in range(8) for column in range(8)][1:] + [(8, 0)]
    expected = sum(2**bit for bit, place in enumerate(places) if frequencies[place] > 0)
    assert perceptual_hash(image)[0] == expected
    assert perceptual_hash(ImageOps.mirror(image))[0] == mirrored(np.array([expected], np.uint64))[0]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "double": lambda image: image.resize((image.width * 2, image.height * 2)),
    "squeezed": lambda image: image.resize((100, 100)),
    "compressed": lambda image: as_jpeg(image, 20),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "mirrored, half, compressed": lambda image: as_jpeg(ImageOps.mirror(image).resize((60, 48)), 40),
    "cut by 2 %": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
}


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [bird(label, index) for label in range(4) for index in range(20)]


def table(images: list[Image.Image]) -> np.ndarray:
    rows = np.zeros(len(images), FINGERPRINT)
    for number, image in enumerate(images):
        rows[number] = (b"%d" % number, *perceptual_hash(image), image.height, image.width)
    return rows


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_found_and_other_birds_are_not(change: str, originals: list[Image.Image]) -> None:
    changed = table(originals + [CHANGES[change](image) for image in originals])
    pairs = {
        pair for part in near_pairs(changed) for pair in zip(part.first.tolist(), part.second.tolist(), strict=True)
    }
    expected = {(number, number + len(originals)) for number in range(len(originals))}
    assert pairs <= expected
    assert len(pairs) >= 0.98 * len(expected)


@pytest.mark.slow
def test_photographs(shared: Path) -> None:
    """The figures of docs/data.md: three pairs in 5,013 photographs, which are what they should be."""
    findings = check([shared / "birds" / part for part in ("train", "val")])
    assert not findings.leaks and not findings.mixed_labels and not findings.duplicates
    names = ["Bobolink/0045.jpg", "Hooded Oriole/0042.jpg", "Cerulean Warbler/0034.jpg"]
    assert ["/".join(Path(row.place.path).parts[-2:]) for row in findings.near_duplicates] == names


def test_pictures_without_contrast_are_alike_only_when_their_files_are() -> None:
    rows = table([Image.new("RGB", (50, 50), (grey, grey, grey)) for grey in (10, 10, 200)])
    assert not list(near_pairs(rows))
    rows["digest"][1] = rows["digest"][0]
    assert near_groups(rows).of(np.arange(3)).tolist() == [0, 0, 2]


def test_faint_pictures_are_left_out() -> None:
    """Their hashes are noise: here that of a slope of two shades."""
    slope = Image.fromarray(np.tile(np.linspace(100, 104, 60).astype(np.uint8), (60, 1))).convert("RGB")
    assert not list(near_pairs(table([slope, slope.resize((80, 80))])))
    steep = slope.point(lambda value: (value - 100) * 40)
    assert len(list(near_pairs(table([steep, steep.resize((80, 80))])))) == 1


def test_thumbnails_decide() -> None:
    rows = table([bird(0, 0), bird(1, 1), bird(0, 0).resize((80, 80))])
    rows["hash"] = 5
    pairs = [(part.first.tolist(), part.second.tolist()) for part in near_pairs(rows)]
    assert pairs == [([0], [2])]


def test_equal_files_in_two_classes_are_no_near_duplicates(data: Path) -> None:
    save(data / "train" / "Dunnock" / "z.png", bird(1, 0))
    counts = run(data).counts()
    assert (counts["duplicates"], counts["mixed_labels"], counts["near_duplicates"]) == (1, 1, 0)


def test_the_closest_is_as_close_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birder.data.hashing._pieces_in_common", lambda count, radius: 1)
    for number in range(24):
        image = ImageEnhance.Brightness(bird(1, 7)).enhance(1 + number % 5 / 10).crop((number % 7, number % 4, 120, 96))
        save(tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png", image.resize((120 - number, 96)))
    rows = check([tmp_path / "data"]).near_duplicates
    hashes = [int(value) for value in fingerprints(read_samples(tmp_path / "data"))[0]["hash"]]
    closest = [min((hashes[one] ^ hashes[two]).bit_count() for one in range(two)) for two in range(1, 24)]
    assert [row.bits for row in rows] == closest
    assert len(set(closest)) > 2


def test_of_pairs_that_come_together_the_closest_stays() -> None:
    first, second, bits = np.array([[0, 1, 2, 3, 0], [5, 5, 5, 5, 4], [6, 2, 2, 7, 1]])
    closest = _Closest(6)
    closest.add(Pairs(first=first, second=second, bits=bits, mirrored=np.array([False, True, False, False, True])))
    pairs = closest.pairs()
    columns = (pairs.first, pairs.second, pairs.bits, pairs.mirrored)
    assert [column.tolist() for column in columns] == [[0, 1], [4, 5], [1, 2], [True, True]]


def test_unreadable_pictures_belong_to_no_group(data: Path) -> None:
    for name in "ab":
        (data / "train" / "Wren" / f"{name}.jpg").touch()
    rows, reasons = fingerprints(read_samples(data / "train"))
    assert reasons == {6: "the file is empty", 7: "the file is empty"}
    assert near_groups(rows).of(np.arange(8)).tolist() == list(range(8))


def test_groups_join_through_others() -> None:
    groups = Groups(6)
    groups.join(np.array([3, 4, 1]), np.array([4, 1, 5]))
    assert groups.of(np.arange(6)).tolist() == [0, 1, 2, 1, 1, 1]


def test_no_torch_is_loaded(data: Path, root: Path) -> None:
    code = (
        "import sys; from birder.data.check import check; from birder.data.split import split; "
        f"check([{str(data / 'train')!r}]); split({str(data / 'train')!r}, {str(data / 'tables')!r}, val=0.4); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
