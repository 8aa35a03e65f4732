"""Whole runs, as ``birder predict --output`` does them, with a real network and real files: nothing is ever lost.

``pytest -m slow tests/inference/test_job.py`` kills a run 50 times and watches its memory.
"""

import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from birder.data.drawn.birds import DrawnBirds
from birder.data.drawn.folder import STORED
from birder.errors import ConfigError
from birder.inference.job import Job
from birder.inference.options import Options
from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats

MANY = 2000
BAD = 20  # of these cannot be read
FEW = 400
PLAIN = Options(backend="torch", precision="fp32", threads=1, workers=1)
WORDS = ("--backend", "torch", "--precision", "fp32", "--threads", "1", "--workers", "1")
TINY = {"size": (32, 32), "in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
SPECIES = ("Wren", "Great Tit", "Magpie", "Snowy Owl", "Emu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = create_network("convnext_v2_atto", 5, **TINY)
    torch.nn.init.normal_(network.classifier.weight)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, network, class_to_idx={name: i for i, name in enumerate(SPECIES)}, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn birds, each another, and some that are cut off."""
    folder = tmp_path_factory.mktemp("photos")
    drawings = [drawing.resize((64, 64)) for drawing in drawn(8)]
    for number in range(MANY):
        cut = number // 8 % 16
        path = folder / f"{number:04}.jpg"
        drawings[number % 8].crop((cut, number // 128, 64, 64)).save(path)
        if number % (MANY // BAD) == 7:
            path.write_bytes(path.read_bytes()[:400])
    return folder


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of some of them."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(photos.iterdir())[:FEW]:
        os.link(path, folder / path.name)
    return folder


def drawn(count: int) -> list[Image.Image]:
    birds = DrawnBirds(species=max(4, count))
    return [birds.draw(label, 0).image for label in range(count)]


@pytest.fixture(scope="module")
def unbroken(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return whole(model, photos, tmp_path_factory.mktemp("unbroken") / "results.csv")


@pytest.fixture(scope="module")
def unbroken_few(model: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return whole(model, few, tmp_path_factory.mktemp("unbroken") / "results.csv")


def whole(model: Path, photos: Path, output: Path) -> bytes:
    """The results of a run that nothing happened to."""
    summary = job(model, photos, output).run()
    bad = summary.inputs * BAD // MANY
    assert summary.statuses == {"ok": summary.inputs - bad, "error": bad}
    rows = table(output)
    assert len({row["label_1"] for row in rows.values()}) > 2, "it has opinions"
    assert len({row["score_1"] for row in rows.values()}) > summary.inputs // 2
    return output.read_bytes()


def job(model: Path, photos: Path, output: Path, **options: object) -> Job:
    return Job(model=str(model), paths=(photos,), output=output, options=replace(PLAIN, **options))


def start(model: Path, photos: Path, output: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "birder", "predict", str(model), str(photos), "--output", str(output), *WORDS]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def table(output: Path) -> dict[str, dict[str, str]]:
    """Rows by their paths."""
    with open(output, newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def kill_often(times: int, model: Path, photos: Path, unbroken: bytes, folder: Path) -> str:
    """Start and kill a run; what the last one says, which must end with what an unbroken one has."""
    output, moments = folder / "results.csv", random.Random(times)
    journal = folder / "results.csv.journal"
    for killed in range(times):
        size = journal.stat().st_size if journal.exists() else 0
        process = start(model, photos, output)
        # Somewhere: while the process begins, in the middle of its work, or when it is writing all down.
        at_once = killed % 4 == 3
        while (
            not at_once and process.poll() is None and not (journal.exists() and journal.stat().st_size > size + 5000)
        ):
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 4.0 if at_once else 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert not output.exists() or output.read_bytes() == unbroken, "never a half file"
    process = start(model, photos, output)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert output.read_bytes() == unbroken
    return said


@pytest.mark.slow
@pytest.mark.parametrize("times", [3, 50])
def test_killed_again_and_again(times: int, model: Path, photos: Path, unbroken: bytes, tmp_path: Path) -> None:
    assert "of them known from before" in kill_often(times, model, photos, unbroken, tmp_path)


def test_killed_once(model: Path, few: Path, unbroken_few: bytes, tmp_path: Path) -> None:
    assert "of them known from before" in kill_often(1, model, few, unbroken_few, tmp_path)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 2), (7, 0), (32, 1)])
def test_the_same_rows_for_any_batches_workers_and_order(
    batch_size: int, workers: int, model: Path, few: Path, unbroken_few: bytes, tmp_path: Path
) -> None:
    paths = sorted(few.iterdir())
    random.Random(batch_size).shuffle(paths)
    one = job(model, few, tmp_path / "results.csv", batch_size=batch_size, workers=workers)
    replace(one, paths=tuple(paths)).run()
    (tmp_path / "unbroken.csv").write_bytes(unbroken_few)
    rows = table(tmp_path / "results.csv")
    assert rows == table(tmp_path / "unbroken.csv")
    assert list(rows) == [str(path) for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_rows_by_openvino(precision: str, model: Path, few: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    tables = []
    for batch_size, workers, threads in [(8, 1, 1), (1, 0, 2), (7, 2, 1)]:
        output, numbers = tmp_path / f"{batch_size}.csv", {"workers": workers, "threads": threads}
        one = job(model, few, output, backend="openvino", precision=precision, batch_size=batch_size, **numbers)
        paths = random.Random(batch_size).sample(sorted(few.iterdir()), FEW)
        try:
            replace(one, paths=tuple(paths)).run()
        except ConfigError as error:
            pytest.skip(str(error))  # a processor without bf16
        tables.append(table(output))
    assert tables[0] == tables[1] == tables[2]


def hashes(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Content and times of all that is in a folder."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in [folder, *folder.rglob("*")]
    }


def mounted(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A place to mount something at."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount")
    place = tmp_path / "disk"
    place.mkdir()
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def test_a_folder_that_cannot_be_written_to(model: Path, few: Path, disk: Path, tmp_path: Path) -> None:
    if not (mounted("--bind", few, disk) and mounted("-o", "remount,bind,ro", disk)):
        pytest.skip("nothing can be mounted here")
    with pytest.raises(OSError, match="Read-only"):
        (disk / "new").touch()
    before = hashes(few)
    assert job(model, disk, tmp_path / "results.csv").run().inputs == FEW
    assert hashes(few) == before


def test_a_full_disk(model: Path, few: Path, unbroken_few: bytes, disk: Path) -> None:
    if not mounted("-t", "tmpfs", "-o", "size=48k", "tmpfs", disk):
        pytest.skip("nothing can be mounted here")
    output, journal = disk / "results.csv", disk / "results.csv.journal"
    with pytest.raises(ConfigError) as caught:
        job(model, few, output).run()
    assert str(caught.value).startswith(f"{journal} could not be written: No space left on device. What is in it is")
    assert not output.exists()
    size = journal.stat().st_size
    assert size > 0

    assert mounted("-o", "remount,size=100m", disk)
    summary = job(model, few, output).run()
    assert 0 < summary.kept < FEW
    assert output.read_bytes() == unbroken_few


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_eight_orientations_of_a_picture(suffix: str, model: Path, tmp_path: Path) -> None:
    """Equal to the last digit, as the pixels are: JPEG keeps plain squares as they are, however they are turned."""
    ways = {1: None, **STORED}
    upright = drawn(1)[0].resize((120, 80))
    if suffix == "jpg":
        upright = upright.resize((15, 10)).resize((120, 80), Image.Resampling.NEAREST)
    folder = tmp_path / "turned"
    folder.mkdir()
    for number, way in ways.items():
        exif = Image.Exif()
        exif[0x0112] = number
        turned = upright if way is None else upright.transpose(way)
        turned.save(folder / f"{number}.{suffix}", exif=exif, subsampling=0)
    job(model, folder, tmp_path / "results.csv").run()
    first, *others = map(without_path, table(tmp_path / "results.csv").values())
    assert first["status"] == "ok"
    assert others == [first] * 7
    # What is turned, and does not say so, is another picture; or this would show nothing.
    upright.transpose(Image.Transpose.ROTATE_180).save(folder / f"9.{suffix}", subsampling=0)
    job(model, folder, tmp_path / "results.csv").run()
    assert without_path(table(tmp_path / "results.csv")[str(folder / f"9.{suffix}")]) != first


def without_path(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != "path"}


def peak_mib(process: "subprocess.Popen[str]") -> float:
    """Memory of a process at its most, when it has ended."""
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    assert process.returncode == 1
    return usage.ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units")
def test_memory_is_flat(model: Path, photos: Path, tmp_path: Path) -> None:
    """Ten times as many pictures take less than 500 bytes more for each of them."""
    peaks = []
    for times in (1, 10):
        folder = tmp_path / f"times {times}"
        for copy in range(times):
            (folder / str(copy)).mkdir(parents=True)
            for path in photos.iterdir():
                os.link(path, folder / str(copy) / path.name)
        peaks.append(peak_mib(start(model, folder, tmp_path / f"{times}.csv")))
    more = (peaks[1] - peaks[0]) * 2**20 / (9 * MANY)
    print(f"{peaks[0]:.0f} MiB of {MANY} pictures, {peaks[1]:.0f} MiB of {10 * MANY}: {more:.0f} bytes for each")
    assert more < 500
