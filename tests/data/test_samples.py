"""Folders and tables become labelled samples, and what cannot be used is explained."""

import hashlib
import os
import pickle
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from birder.data.folders import find_images
from birder.data.samples import Files, Samples, read_pictures, read_samples
from birder.data.shards import write_shards
from birder.errors import DataError, ImageError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def message(source: Path, class_to_idx: dict[str, int] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_samples(source, class_to_idx)
    return str(caught.value)


def test_a_folder_of_species(tmp_path: Path) -> None:
    make(
        tmp_path,
        "Wren/2.jpg",
        "Wren/1.JPEG",
        "Wren/2012/may/7.webp",
        "Great Tit/b.png",
        "Östlicher Großer Käfer 鳥/ö.jpg",
        "Wren/notes.txt",
        "Wren/.hidden.jpg",
        ".cache/x.jpg",
        "readme.md",
    )
    samples = read_samples(tmp_path)
    assert samples.class_to_idx == {"Great Tit": 0, "Wren": 1, "Östlicher Großer Käfer 鳥": 2}
    assert [path.relative_to(tmp_path).as_posix() for path in samples.paths] == [
        "Great Tit/b.png",
        "Wren/1.JPEG",
        "Wren/2.jpg",
        "Wren/2012/may/7.webp",
        "Östlicher Großer Käfer 鳥/ö.jpg",
    ]
    assert samples.labels.tolist() == [0, 1, 1, 1, 2]
    assert len(samples) == 5


def test_names_are_compared_in_composed_form(tmp_path: Path) -> None:
    make(tmp_path, unicodedata.normalize("NFD", "Grünfink/1.jpg"))
    assert read_samples(tmp_path, {"Grünfink": 4, "Wren": 0}).labels.tolist() == [4]
    decomposed = {unicodedata.normalize("NFD", "Grünfink"): 3}
    assert read_samples(tmp_path, decomposed).labels.tolist() == [3]


def test_given_classes_are_kept(tmp_path: Path) -> None:
    make(tmp_path, "Wren/1.jpg")
    (tmp_path / "Magpie").mkdir()  # a class of which this set has no picture
    classes = {"Wren": 1, "Great Tit": 0, "Magpie": 2}
    samples = read_samples(tmp_path, classes)
    assert samples.labels.tolist() == [1] and samples.class_to_idx == classes


def test_unknown_classes_are_listed_counted_and_explained(tmp_path: Path) -> None:
    make(
        tmp_path, "Great Tits/1.jpg", "Great Tits/2.jpg", "Wren/1.jpg", *(f"zzz{number}/1.jpg" for number in range(12))
    )
    text = message(tmp_path, {"Great Tit": 0, "Wren": 1})
    assert "13 of 14 classes are not among the model's" in text
    assert "Great Tits (2 pictures); did you mean Great Tit?" in text
    assert "and 3 more" in text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "holds no pictures"),
        (("a/notes.txt",), "holds no pictures"),
        (("a/1.jpg", "a/2.jpg"), "only one class, 'a'"),
        (("1.jpg", "2.jpg"), "2 pictures lie directly in the folder"),
        (("1.jpg", "a/1.jpg", "b/1.jpg"), "1 picture lies directly in the folder"),
        (("train/a/1.jpg", "val/a/1.jpg"), "holds parts of a data set, not classes: give one of them"),
        (("a/1.jpg", "b/1.jpg", "c/notes.txt"), "no pictures in c; fill these folders"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    assert words in message(make(tmp_path, *names))


def test_what_is_not_there(tmp_path: Path) -> None:
    assert message(tmp_path / "nothing") == f"{tmp_path / 'nothing'}: no such file or folder"


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "birds.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "text",
    [
        'path,label\na/1.jpg,Wren\n"b, c.jpg",Größe\n\na/2.jpg,Wren\n',
        'path,label\r\na/1.jpg,Wren\r\n"b, c.jpg",Größe\r\na/2.jpg,Wren',
        'place,label,path,more\nx,Wren,a/1.jpg,1\ny,Größe,"b, c.jpg"\nz,Wren , a/2.jpg,1\n'.replace(", a", ",a"),
        "path;label\na/1.jpg;Wren\nb, c.jpg;Größe\na/2.jpg;Wren\n",
        "path\tlabel\na/1.jpg\tWren\nb, c.jpg\tGröße\na/2.jpg\tWren\n",
    ],
)
def test_tables(tmp_path: Path, text: str, encoding: str) -> None:
    samples = read_samples(table(tmp_path, text, encoding))
    assert list(samples.paths) == [tmp_path / "a/1.jpg", tmp_path / "b, c.jpg", tmp_path / "a/2.jpg"]
    assert samples.class_to_idx == {"Größe": 0, "Wren": 1}
    assert samples.labels.tolist() == [1, 0, 1]


def test_an_absolute_path_in_a_table_stays(tmp_path: Path) -> None:
    samples = read_samples(table(tmp_path, "path,label\n/photos/1.jpg,a\n"), {"a": 0})
    assert samples.name(0) == "/photos/1.jpg"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must name the columns path and label; it is ''"),
        ("file,species\n1.jpg,Wren\n", "must name the columns path and label; it is 'file,species'"),
        ("path,label\n", "holds no pictures"),
        ("path,label\n1.jpg,a\n2.jpg\n", "line 3: no label: '2.jpg'"),
        ("path,label\n1.jpg,a\n2.jpg, \n", "line 3: no label"),
        ("path,label\n1.jpg,a\n\n,b\n", "line 4: no path"),
        ("label,path\na\n", "line 2: no path"),
        ("path,label\n1.jpg,a\n2.jpg,a\n", "only one class, 'a'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    assert words in message(table(tmp_path, text))


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    assert "save it as 'CSV UTF-8'" in message(table(tmp_path, "path,label\n1.jpg,Größe\n", "latin-1"))


def test_classes_of_a_table_in_two_spellings_are_one(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Größe")
    samples = read_samples(table(tmp_path, f"path,label\n1.jpg,Größe\n2.jpg,{decomposed}\n3.jpg,Wren\n"))
    assert samples.class_to_idx == {"Größe": 0, "Wren": 1} and samples.labels.tolist() == [0, 0, 1]


def test_what_is_in_a_sample(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no picture")
    samples = Samples(
        Files.at([tmp_path / "1.png", tmp_path / "2.png", tmp_path / "3.png"]), [0, 1, 0], {"a": 0, "b": 1}
    )
    assert samples.name(0) == str(tmp_path / "1.png")
    assert samples.read(0).getpixel((0, 0)) == (255, 0, 0)
    assert samples.content(0) == (tmp_path / "1.png").read_bytes() and samples.content(1) == b"no picture"
    with pytest.raises(ImageError, match="not a picture"):
        samples.read(1)
    for read in (samples.read, samples.content):
        with pytest.raises(ImageError, match="no such file"):
            read(2)


def test_some_of_the_samples(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/{number}.jpg" for name in "ab" for number in range(5)))
    samples = read_samples(tmp_path)
    some = samples.select([7, 2, 2]).select([2, 0])
    assert [path.relative_to(tmp_path).as_posix() for path in some.paths] == ["a/2.jpg", "b/2.jpg"]
    assert some.labels.tolist() == [0, 1] and some.class_to_idx == samples.class_to_idx
    assert some.paths[-1:] == [tmp_path / "b/2.jpg"]
    copied = pickle.loads(pickle.dumps(some))
    assert list(copied.paths) == list(some.paths) and copied.fingerprint() == some.fingerprint()


def test_a_fingerprint_is_of_names_labels_and_classes(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg", "ö/1.jpg"]
    first, moved = (read_samples(make(tmp_path / place, *names)) for place in ("here", "there/deeper"))
    assert first.fingerprint() == moved.fingerprint()
    content = "3\0a/1.jpg\0a/2.jpg\0ö/1.jpg\0".encode() + struct.pack("<3q", 0, 0, 1) + b'[["a", 0], ["\\u00f6", 1]]'
    assert first.fingerprint() == hashlib.sha256(content).hexdigest()
    others = [
        read_samples(make(tmp_path / "renamed", "a/1.jpg", "a/3.jpg", "ö/1.jpg")),
        read_samples(make(tmp_path / "cut", "a/1.jpg", "a/2.jp2", "ö/1.jpg")),
        first.select([0, 2, 1]),
        first.select([0, 1]),
        read_samples(tmp_path / "here", {"a": 1, "ö": 0}),
        read_samples(tmp_path / "here", {"a": 0, "ö": 1, "x": 2}),
    ]
    assert len({first.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def test_a_large_set_takes_little_memory(tmp_path: Path) -> None:
    count = 20_000
    rows = (f"pictures/Species {number % 50}/IMG_{number:08d}.jpg,Species {number % 50}" for number in range(count))
    samples = read_samples(table(tmp_path, "\n".join(["path,label", *rows])))
    assert len(samples) == count and samples.name(count - 1).endswith("Species 49/IMG_00019999.jpg")
    assert len(pickle.dumps(samples)) < 75 * count  # 41 letters, where each ends, label and place


def test_find_images_takes_files_as_they_are_and_searches_folders(tmp_path: Path) -> None:
    make(
        tmp_path, "b/2.jpg", "b/10.HEIC", "b/a/x.tif", "b/notes.txt", "b/plain", "b/.x.jpg", "b/.git/y.jpg", "odd.name"
    )
    passed_over: Counter[str] = Counter()
    paths = [tmp_path / "odd.name", str(tmp_path / "b"), tmp_path / "nothing.jpg"]
    found = list(find_images(paths, passed_over=passed_over))
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["odd.name", "b/10.HEIC", "b/2.jpg", "b/a/x.tif", "nothing.jpg"]
    assert passed_over == {".txt": 1, "": 1}


def test_a_link_that_leads_to_itself_hides_no_neighbour(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    (tmp_path / "a" / "loop.jpg").symlink_to("loop.jpg")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a/1.jpg", "a/loop.jpg", "b/1.jpg"]


def test_links_are_followed_but_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "b" / "there").symlink_to(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "link.jpg").symlink_to(tmp_path / "b" / "2.jpg")
    (tmp_path / "a" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    names = [path.name for path in find_images([tmp_path / "a"])]
    assert sorted(names) == ["1.jpg", "2.jpg", "broken.jpg", "link.jpg"]


def test_a_folder_of_linked_species(tmp_path: Path) -> None:
    make(tmp_path, "store/x/1.jpg", "store/y/2.jpg")
    (tmp_path / "set").mkdir()
    for name in ("x", "y"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    assert read_samples(tmp_path / "set").class_to_idx == {"x": 0, "y": 1}


def test_a_folder_that_cannot_be_listed_is_yielded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(find_images([tmp_path])) == [tmp_path / "a", tmp_path / "b" / "1.jpg"]


def test_find_images_is_lazy(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")

    def paths() -> Iterator[Path]:
        yield tmp_path / "a"
        raise AssertionError("asked for more than was needed")

    assert next(find_images(paths())) == tmp_path / "a" / "1.jpg"


def names(samples: Samples, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in samples.paths]


def no_pictures(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_pictures(source)
    return str(caught.value)


def test_pictures_without_labels_lie_anywhere(tmp_path: Path) -> None:
    """Loose ones, one folder only, parts of a set, empty folders: all that labels would forbid."""
    make(tmp_path, "2.jpg", "train/b/1.png", "train/a.JPG", "notes.txt", ".x.jpg", ".git/y.jpg", "train/b/c.txt")
    (tmp_path / "empty").mkdir()
    samples = read_pictures(tmp_path)
    assert names(samples, tmp_path) == ["2.jpg", "train/a.JPG", "train/b/1.png"]
    assert (samples.labels.tolist(), samples.class_to_idx) == ([0, 0, 0], {})
    assert samples.labels.dtype == "int64"
    assert samples.select([2]).name(0).endswith("1.png")
    assert len(read_pictures(tmp_path / "train" / "b")) == 1


def test_pictures_of_a_tree_of_species_come_in_the_order_that_they_have_with_labels(tmp_path: Path) -> None:
    make(tmp_path, "b/2.jpg", "b/10.jpg", "a/z/1.jpg", "a/y.jpg", "a b/1.jpg", "a-b/1.jpg", "Ä/1.jpg", "B/9/8/7.jpg")
    labelled, plain = read_samples(tmp_path), read_pictures(tmp_path)
    assert [plain.name(row) for row in range(8)] == [labelled.name(row) for row in range(8)]
    assert plain.fingerprint() != labelled.fingerprint(), "a run without labels is another one"
    assert plain.fingerprint() == read_pictures(tmp_path).fingerprint()


@pytest.mark.parametrize(
    "text", ["path\nx/1.jpg\n2.jpg\n", "label,path,x\nWren,x/1.jpg,\n,2.jpg\n", "path;label\r\nx/1.jpg;a\r\n2.jpg;\r\n"]
)
def test_a_table_needs_no_labels(text: str, tmp_path: Path) -> None:
    samples = read_pictures(table(tmp_path, text))
    assert names(samples, tmp_path) == ["x/1.jpg", "2.jpg"]
    assert (samples.labels.tolist(), samples.class_to_idx) == ([0, 0], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\n1.jpg,a\n", "the first line must name the column path; it is 'file,label'"),
        ("path\n", "birds.csv holds no pictures"),
        ("path,label\n1.jpg,a\n,b\n", "birds.csv, line 3: no path: ',b'"),
        ("path,label\n1.jpg,a\n  ,b\n", "birds.csv, line 3: no path: '  ,b'"),
        ("label,path\na\n", "birds.csv, line 2: no path: 'a'"),
    ],
)
def test_a_table_of_pictures_that_is_none(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in no_pictures(table(tmp_path, text))


def test_pictures_of_shards_come_without_their_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("a/1.jpg", "a/2.jpg", "b/3.jpg")):
        make(tmp_path, f"tree/{name}")
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(tmp_path / "tree" / name)
    write_shards(read_samples(tmp_path / "tree"), tmp_path / "shards", prefix="birds")
    labelled, plain = read_samples(tmp_path / "shards"), read_pictures(tmp_path / "shards")
    assert [plain.name(row) for row in range(3)] == [labelled.name(row) for row in range(3)]
    assert (plain.labels.tolist(), plain.class_to_idx) == ([0, 0, 0], {})
    assert plain.content(2) == labelled.content(2)


def test_no_pictures_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_pictures(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such file or folder"
    assert no_pictures(tmp_path) == f"{tmp_path} holds no pictures"
    make(tmp_path, "notes.txt", "a/readme.md")
    assert no_pictures(tmp_path) == f"{tmp_path} holds no pictures"
    refused, scandir = {"locked"}, os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name in refused:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    make(tmp_path, "locked/inner/1.jpg", "locked/2.jpg")
    monkeypatch.setattr(os, "scandir", refuse)
    assert no_pictures(tmp_path / "locked") == f"{tmp_path / 'locked'} cannot be read: Permission denied"
    refused = {"inner"}
    samples = read_pictures(tmp_path / "locked")
    assert names(samples, tmp_path / "locked") == ["2.jpg", "inner"], "it is not passed over in silence"
    with pytest.raises(ImageError):
        samples.read(1)


def test_the_bird_photographs(shared: Path) -> None:
    samples = read_samples(shared / "birds" / "val")
    assert len(samples) == 989 and len(samples.class_to_idx) == 100
    assert samples.class_to_idx["American Goldfinch"] == 0
    counts = Counter(samples.labels.tolist())
    assert min(counts.values()) == 8 and max(counts.values()) == 10
