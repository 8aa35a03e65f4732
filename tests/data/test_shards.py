"""Pictures go into tar files and come back; what is incomplete or unclear is refused with a reason."""

import io
import json
import multiprocessing
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data import members
from birder.data.pack import Encoded
from birder.data.samples import Files, Samples, read_samples
from birder.data.shards import write_shards
from birder.errors import ConfigError, DataError, ImageError

CLASSES = {"Wren": 0, "Great Tit": 1, "Größe": 2}
# The rule of the webdataset package: what shares all before the first dot of the last part is a sample.
KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Ten pictures of several formats; the fourth cannot be read."""
    paths = []
    for number in range(10):
        suffix = ("jpg", "png", "webp", "bmp")[number % 4] if number != 3 else "jpg"
        paths.append(tmp_path / f"{number}.{suffix}")
        if number == 3:
            paths[-1].write_text("no picture")
        else:
            picture(number).save(paths[-1])
    return Samples(Files.at(paths), [number % 3 for number in range(10)], CLASSES)


READABLE = [0, 1, 2, 4, 5, 6, 7, 8, 9]


def message(source: Path, class_to_idx: dict[str, int] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_samples(source, class_to_idx)
    return str(caught.value)


def test_pictures_come_back_as_they_were(samples: Samples, tmp_path: Path) -> None:
    packed = write_shards(samples, tmp_path / "shards", prefix="birds-training", samples_per_shard=4)
    assert packed.pictures == 9 and packed.lengths == [4, 4, 1]
    assert packed.unreadable == [(samples.name(3), "not a picture")]
    back = read_samples(tmp_path / "shards")
    assert back.class_to_idx == CLASSES and back.labels.tolist() == samples.labels[READABLE].tolist()
    assert back.name(4) == str(tmp_path / "shards" / "birds-training-000001.tar" / "sample000000004.png")
    for index, number in enumerate(READABLE):
        assert np.array_equal(np.array(back.read(index)), np.array(samples.read(number)))
        if number != 7:  # a BMP, which shards know no ending for
            assert back.content(index) == samples.content(number)
    assert back.name(6).endswith("sample000000006.png")


def test_the_standard_library_reads_what_was_written(samples: Samples, tmp_path: Path) -> None:
    write_shards(samples, tmp_path / "shards", prefix="birds-training", samples_per_shard=4)
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                match, file = KEY.match(member.name), tar.extractfile(member)
                assert match and file
                found.setdefault(match[1], {})[match[2]] = file.read()
    assert list(found) == [f"sample{number:09d}" for number in range(9)]
    for sample, number in zip(found.values(), READABLE, strict=True):
        assert int(sample.pop("cls")) == number % 3
        (content,) = sample.values()
        assert np.array_equal(np.array(Image.open(io.BytesIO(content))), np.array(samples.read(number)))
    info = json.loads((tmp_path / "shards" / "_info.json").read_text(encoding="utf-8"))
    assert info == {
        "name": "birds",
        "splits": {
            "training": {
                "name": "training",
                "filenames": [f"birds-training-{number:06d}.tar" for number in range(3)],
                "shard_lengths": [4, 4, 1],
                "num_samples": 9,
            }
        },
    }
    assert (tmp_path / "shards" / "classes.txt").read_text(encoding="utf-8") == "Wren\nGreat Tit\nGröße\n"


def test_equal_arguments_give_equal_bytes_in_any_number_of_processes(samples: Samples, tmp_path: Path) -> None:
    done: list[int] = []
    write_shards(samples, tmp_path / "a", prefix="x", encode=Encoded(size=16, format="jpeg"), progress=done.append)
    write_shards(samples, tmp_path / "b", prefix="x", encode=Encoded(size=16, format="jpeg"), workers=2)
    assert (tmp_path / "a/x-000000.tar").read_bytes() == (tmp_path / "b/x-000000.tar").read_bytes()
    assert done == list(range(1, 11))
    back = read_samples(tmp_path / "a")
    assert {min(back.read(index).size) for index in range(9)} == {16}
    assert back.content(1)[:3] == b"\xff\xd8\xff"


def test_a_shard_is_closed_when_it_has_its_bytes(samples: Samples, tmp_path: Path) -> None:
    packed = write_shards(samples, tmp_path / "shards", prefix="x", bytes_per_shard=1)
    assert packed.lengths == [1] * 9


def test_packing_leaves_nothing_half(samples: Samples, tmp_path: Path) -> None:
    def stop(image: Image.Image) -> bytes:
        if image.height == 26:
            raise KeyboardInterrupt
        return Encoded(size=999, format="jpeg")(image)

    folder = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        write_shards(samples.select([0] * 40 + [6]), folder, prefix="x", samples_per_shard=10, encode=stop)
    assert sorted(os.listdir(folder)) == ["_info.json", "classes.txt", "x-000000.tar", "x-000001.tar", "x-000002.tar"]
    assert "packing x was not finished; pack it again" in message(folder)
    write_shards(samples, folder, prefix="x", samples_per_shard=5)
    assert len(read_samples(folder)) == 9 and len(list(folder.glob("*.tar"))) == 2
    with pytest.raises(DataError, match=r"has shards x-\*\.tar already"):
        write_shards(samples, folder, prefix="x")


def test_several_sets_share_a_folder(samples: Samples, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(samples, folder, prefix="birds-training", samples_per_shard=4)
    write_shards(samples.select([0, 1, 2]), folder, prefix="birds-validation")
    assert set(json.loads((folder / "_info.json").read_text())["splits"]) == {"training", "validation"}
    assert f"give one of {folder}/birds-training, {folder}/birds-validation" in message(folder)
    assert len(read_samples(folder / "birds-training")) == 9
    assert len(read_samples(folder / "birds-validation")) == 3
    assert len(read_samples(folder / "birds-training-000001.tar")) == 4
    other = Samples(Files.at([samples.paths[0]]), [0], {"Emu": 0})
    with pytest.raises(DataError, match="names other classes"):
        write_shards(other, folder, prefix="emus")


def test_labels_are_those_of_the_model(samples: Samples, tmp_path: Path) -> None:
    write_shards(samples, tmp_path / "shards", prefix="x")
    model = {"Great Tit": 0, "Größe": 1, "Magpie": 2, "Wren": 3}
    back = read_samples(tmp_path / "shards", model)
    assert back.class_to_idx == model
    assert back.labels.tolist() == [{0: 3, 1: 0, 2: 1}[number % 3] for number in READABLE]
    assert "1 of 3 classes are not among the model's" in message(tmp_path / "shards", {"Wren": 0, "Great Tit": 1})


def foreign(path: Path, files: dict[str, bytes]) -> Path:
    """A tar file that something else has packed."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_shards_of_others(tmp_path: Path) -> None:
    """Folders within, endings in capitals, metadata, the label first, and no ``_info.json``."""
    jpeg = Encoded(size=999, format="jpeg")(picture(1))
    files = {
        "./a/1.JPG": jpeg,
        "./a/1.json": b"{}",
        "./a/1.cls": b"1\n",
        "b/1.cls": b"0",
        "b/1.x.jpg": b"no",
        "b/1.jpeg": jpeg,
    }
    foreign(tmp_path / "s/il-all-wds-training-000000.tar", files)
    (tmp_path / "s/classes.txt").write_text("Emu\nWren\n")
    samples = read_samples(tmp_path / "s")
    assert samples.labels.tolist() == [1, 0]
    assert samples.content(0) == samples.content(1) == jpeg
    assert [Path(samples.name(index)).name for index in range(2)] == ["1.JPG", "1.jpeg"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1.cls": b"0"}, "1 has no picture; its ending would be one of jpeg, jpg, png, webp"),
        ({"1.jpg": b"x"}, "1 has no label; 1.cls must be the number of its class"),
        ({"1.jpg": b"x", "2.cls": b"0"}, "1 has no label"),
        ({"1.jpg": b"x", "1.cls": b"Wren"}, "1 has the label b'Wren'"),
        ({"1.jpg": b"x", "1.cls": b"-1"}, "1 has the label b'-1'"),
        ({"1.jpg": b"x", "1.cls": b"0", "2.jpg": b"x", "2.cls": b"2"}, "2.jpg has the label 2, but"),
        ({"notes": b"x"}, "holds no pictures"),
        ({"1.jpg": b"x", "1.cls": b"0"}, "only one class, 'Emu'"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    foreign(tmp_path / "s/x-0.tar", files)
    (tmp_path / "s/classes.txt").write_text("Emu\nWren\n")
    assert words in message(tmp_path / "s")


def test_what_is_missing_is_said(samples: Samples, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(samples, folder, prefix="x", samples_per_shard=4)
    (folder / "x-000001.tar").rename(folder / "x-000001.tar.gz")
    assert "1 of the 3 tar files of x are missing, x-000001.tar the first" in message(folder)
    assert "is compressed" in message(folder / "x-000001.tar.gz")
    (folder / "x-000001.tar.gz").rename(folder / "x-000001.tar")
    (folder / "classes.txt").write_text("a\nb\na\n")
    assert "names a twice" in message(folder)
    (folder / "classes.txt").unlink()
    assert "with one class name per line" in message(folder)
    (folder / "_info.json").write_text("[]")
    assert "_info.json is no description of shards" in message(folder)
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz/x-0.tar.gz").touch()
    assert "1 compressed tar files" in message(tmp_path / "gz")


def test_an_archive_beside_folders_of_species_changes_nothing(samples: Samples, tmp_path: Path) -> None:
    for name in ("Wren", "Emu"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.jpg").touch()
    (tmp_path / "set/backup.tar").write_text("anything")
    assert read_samples(tmp_path / "set").class_to_idx == {"Emu": 0, "Wren": 1}


def test_a_cut_shard_is_refused(samples: Samples, tmp_path: Path) -> None:
    write_shards(samples, tmp_path / "shards", prefix="x")
    path = tmp_path / "shards/x-000000.tar"
    with open(path, "rb+") as file:
        file.truncate(5000)
    assert f"{path} ends early, at byte 5000 within sample" in message(tmp_path / "shards")


def test_the_index_is_kept_until_a_shard_changes(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shards"
    write_shards(samples, folder, prefix="x", samples_per_shard=4)
    first = read_samples(folder)
    calls = []
    scan = members._scan
    monkeypatch.setattr(members, "_scan", lambda shards: calls.append(shards) or scan(shards))
    again = read_samples(folder)
    assert not calls and again.fingerprint() == first.fingerprint()
    assert [again.content(index) for index in range(9)] == [first.content(index) for index in range(9)]
    os.utime(folder / "x-000001.tar", (1, 1))
    assert read_samples(folder).fingerprint() == first.fingerprint() and len(calls) == 1
    (index,) = folder.glob(".*.npz")
    for content in (b"", b"nonsense", index.read_bytes()[:-300], bytes(1000)):
        index.write_bytes(content)
        assert read_samples(folder).fingerprint() == first.fingerprint()
    assert len(calls) == 5


def test_an_index_lies_elsewhere_when_the_folder_cannot_be_written_to(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shards"
    write_shards(samples, folder, prefix="x")
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "home"))
    atomic = members.atomic

    def refuse(path: Path) -> object:
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return atomic(path)

    monkeypatch.setattr(members, "atomic", refuse)
    first = read_samples(folder)
    assert [path.parent for path in tmp_path.rglob("*.npz")] == [tmp_path / "home" / "shards"]
    monkeypatch.setattr(members, "_scan", None)
    assert read_samples(folder).fingerprint() == first.fingerprint()


def read_all(samples: Samples, results: "multiprocessing.Queue[list[bytes]]") -> None:
    results.put([samples.content(index) for index in range(len(samples))])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_processes_read_the_same_from_open_files(samples: Samples, tmp_path: Path, method: str) -> None:
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=4)
    back = read_samples(tmp_path / "shards")
    wanted = [back.content(index) for index in range(9)]
    context = multiprocessing.get_context(method)
    results = context.Queue()
    processes = [context.Process(target=read_all, args=(back, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [wanted, wanted]
    for process in processes:
        process.join()
    assert [back.content(index) for index in range(9)] == wanted


def test_only_some_tar_files_stay_open(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_OPEN", 2)
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=1)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    back = read_samples(tmp_path / "shards")
    contents = [back.content(index) for index in [*range(9), 0]]
    assert contents[0] == contents[9] and len(set(contents)) == 9
    if before:
        assert len(os.listdir("/proc/self/fd")) - before == 2


def test_a_shard_that_vanishes_costs_its_pictures(samples: Samples, tmp_path: Path) -> None:
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=4)
    back = read_samples(tmp_path / "shards")
    (tmp_path / "shards/x-000000.tar").unlink()
    os.truncate(tmp_path / "shards/x-000001.tar", 600)
    with pytest.raises(ImageError, match="the tar file cannot be read: No such file"):
        back.read(0)
    with pytest.raises(ImageError, match="the tar file has become shorter"):
        back.read(5)
    assert back.read(8)


def test_names_on_other_machines_are_the_same(samples: Samples, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards(samples, tmp_path / name, prefix="x", samples_per_shard=4)
    first, second = (read_samples(tmp_path / name) for name in ("a", "b"))
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != first.select([1, 0, 2]).fingerprint()


def test_a_copy_in_another_process_opens_files_of_its_own(samples: Samples, tmp_path: Path) -> None:
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=4)
    first = read_samples(tmp_path / "shards")
    content, name = first.content(3), first.name(3)
    copied = pickle.loads(pickle.dumps(first))
    del first  # and with it its open files
    assert copied.name(3) == name and copied.content(3) == content


@pytest.mark.parametrize("options", [{"prefix": "a/b"}, {"prefix": ""}, {"prefix": ".a"}, {"samples_per_shard": 0}])
def test_options_that_make_no_sense(samples: Samples, tmp_path: Path, options: dict) -> None:
    with pytest.raises(ConfigError):
        write_shards(samples, tmp_path / "shards", **{"prefix": "x", **options})
    assert not (tmp_path / "shards").exists()


def test_sets_that_cannot_be_packed(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 1 pictures can be read; .*3\.jpg: not a picture"):
        write_shards(samples.select([3]), tmp_path / "shards", prefix="x")
    for classes, words in (({"a": 0, "b": 2}, "labels 0, 1, 2"), ({"a\nb": 0}, "cannot be a line of classes.txt")):
        with pytest.raises(DataError, match=words):
            write_shards(Samples(Files.at([]), [], classes), tmp_path / "other", prefix="x")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="shards cannot be written"):
        write_shards(samples, tmp_path / "file", prefix="x")
    with pytest.raises(DataError, match="encode must give the bytes"):
        write_shards(samples, tmp_path / "third", prefix="x", encode=lambda image: b"nonsense")
