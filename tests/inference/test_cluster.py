"""Prediction by Ray, here on this machine alone: as without it, whatever becomes of the workers.

``pytest -m slow tests/inference/test_cluster.py`` starts Ray, which takes its time.
"""

import os
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.errors import ConfigError, MissingPackage
from birder.inference import cluster
from birder.inference.bulk.run import Summary, Target, run
from birder.inference.cluster import Cluster
from birder.inference.job import Job
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.results.output import open_output
from birder.model_file import ModelInfo, save_model
from birder.networks import Network

PLAIN = Options(backend="torch", precision="fp32", threads=1, batch_size=7)
MANY = 1500


@pytest.fixture
def model(network: Network, info: ModelInfo, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, network, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, each another, of which every hundredth cannot be read."""
    folder, random = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for number in range(MANY):
        path = folder / f"{number:04}.jpg"
        Image.fromarray(random.integers(0, 255, (48, 40, 3), np.uint8)).save(path)
        if number % 100 == 99:
            path.write_bytes(path.read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A cluster of two workers; nothing of it is left at the end."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()
    wait_until(lambda: not any("raylet" in command for command in descendants().values()))


def written(predictor: Predictor | Cluster, folder: Path, output: Path) -> bytes:
    """The file of results."""

    def write(rows: Iterator) -> None:
        with open_output(output, predictor.layout) as file:
            file.write(rows)

    paths = [*sorted(map(str, folder.iterdir())), str(folder / "no.jpg")]
    run(paths, predictor.run, Target(path=output, write=write), identity={}, batch_size=predictor.batch_size)
    return output.read_bytes()


def descendants() -> dict[int, str]:
    """Processes that this one has started, directly or not, and their commands."""
    parents, commands = dict[int, int](), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
    found, new = set[int](), {os.getpid()}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return {process: commands[process] for process in found if process in commands}


def at_work() -> list[int]:
    """Workers that compute a task; Ray calls them so while they do."""
    return [process for process, command in descendants().items() if command.startswith("ray::Map(_answered)")]


def wait_until(what, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_ray(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"--cluster ray needs ray: pip install 'birder\[cluster\]'"):
        Cluster(model, PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("embeddings", [False, True])
def test_the_same_as_without_a_cluster(ray: None, model: Path, many: Path, tmp_path: Path, embeddings: bool) -> None:
    suffix = ".parquet" if embeddings else ".csv"
    with Predictor(model, PLAIN, embeddings=embeddings) as predictor:
        wanted = written(predictor, many, tmp_path / f"local{suffix}")
    with Cluster(model, PLAIN, embeddings=embeddings) as cluster:
        assert cluster.workers == 2
        assert cluster.chosen.settings == predictor.chosen.settings
        same = ("network_name", "size", "names", "layout", "batch_size")
        assert all(getattr(cluster, name) == getattr(predictor, name) for name in same)
        assert written(cluster, many, tmp_path / f"cluster{suffix}") == wanted


@pytest.mark.slow
def test_relative_paths_stay_so(ray: None, model: Path, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(many)
    batches = [["0000.jpg", "./0099.jpg", "no.jpg"], ["0001.jpg"]]
    with Predictor(model, PLAIN) as predictor, Cluster(Path(os.path.relpath(model)), PLAIN) as cluster:
        rows = list(cluster.run(batches))
        assert rows == list(predictor.run(batches))
    assert [[(row.path, row.code) for row in batch] for batch in rows] == [
        [("0000.jpg", ""), ("./0099.jpg", "truncated"), ("no.jpg", "missing")],
        [("0001.jpg", "")],
    ]


@pytest.mark.slow
def test_killed_workers_lose_nothing(ray: None, model: Path, many: Path, tmp_path: Path) -> None:
    with Predictor(model, PLAIN) as predictor:
        wanted = written(predictor, many, tmp_path / "local.csv")
    killed = list[int]()

    def kill_two() -> None:
        while len(killed) < 2:
            time.sleep(0.05)
            for process in at_work()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    with Cluster(model, PLAIN) as cluster:
        killer = threading.Thread(target=kill_two, daemon=True)
        killer.start()
        assert written(cluster, many, tmp_path / "cluster.csv") == wanted
        killer.join(1)
    assert len(set(killed)) == 2


@pytest.mark.slow
def test_a_run_that_is_broken_off_ends_its_work(ray: None, model: Path, many: Path) -> None:
    def endless() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield [str(many / "0000.jpg")] * 7

    taken = 0
    with Cluster(model, PLAIN) as cluster:
        rows = cluster.run(endless())
        for _ in rows:
            if at_work():
                break
        rows.close()
        assert taken < 10_000
        wait_until(lambda: not at_work())


@pytest.mark.slow
def test_what_arrives_later_is_computed_by_the_cluster_too(ray: None, model: Path, many: Path, tmp_path: Path) -> None:
    folder, output, looks = tmp_path / "photos", tmp_path / "results.csv", []
    folder.mkdir()
    arriving = iter([sorted(many.iterdir())[:150], sorted(many.iterdir())[150:230]])

    def arrive(summary: Summary) -> None:
        looks.append((summary.inputs, summary.predicted))
        new = next(arriving, None)
        if new is None:
            raise KeyboardInterrupt
        for path in new:
            shutil.copy(path, folder)
            os.utime(folder / path.name, (0, 0))  # as one that nobody is writing to any more

    shutil.copy(many / "1000.jpg", folder)
    os.utime(folder / "1000.jpg", (0, 0))
    job = Job(model=str(model), paths=(folder,), output=output, options=PLAIN, cluster="ray")
    job.watch(interval_s=0.1, finished=arrive)
    assert looks == [(1, 1), (151, 150), (231, 80)]
    whole = tmp_path / "whole.csv"
    Job(model=str(model), paths=(folder,), output=whole, options=PLAIN).run()
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_another_model_on_a_worker_is_an_error(ray: None, model: Path, many: Path) -> None:
    with Cluster(model, PLAIN) as cluster:
        model.write_bytes(b"another")
        # The worker that was asked first has loaded what was there; the others have not.
        with pytest.raises(ConfigError, match=r"another version of birder than .*, or another .*model.safetensors"):
            for _ in cluster.run([str(many / "0000.jpg")] for _ in range(2000)):
                pass


def test_a_cluster_that_was_killed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._address() == "local"
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as there:
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{there.getsockname()[1]}")
        assert cluster._address() is None
    assert cluster._address() == "local"
