"""What a server says before it runs; how one runs and ends is in test_shutdown."""

import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from birder.cli.serve import serve as command
from birder.errors import BirderError, ConfigError
from birder.inference.job import Job
from birder.inference.options import Options, Work
from birder.serving.server import Offer, _most_connections, serve
from birder.serving.settings import Settings, is_loopback
from tests.serving.small import bird, small_model

WORK = Work(backend="torch", precision="fp32", threads=1, workers=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, the same again in a folder of its own, and an index of each of two models."""
    folder = tmp_path_factory.mktemp("offered")
    small_model(folder)
    (folder / "again").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "again")
    (folder / "picture.jpg").write_bytes(bird(0))
    for name, model in (("index", str(folder / "model.safetensors")), ("foreign", "starter")):
        options = Options(backend="torch", precision="fp32", threads=1, workers=0)
        paths, output = (folder / "picture.jpg",), folder / f"{name}.npy"
        Job(model=model, paths=paths, output=output, options=options, embeddings=True).run()
    return folder


def refused(place: Path, *models: str, settings: Settings | None = None, **offer: Any) -> str:
    """Why a server does not start."""
    offered = Offer(models=[str(place / name) for name in models], **{"work": WORK} | offer)
    with pytest.raises(BirderError) as caught:
        serve(offered, settings or Settings(port=0), lambda address: pytest.fail("it has started"))
    return str(caught.value)


def test_what_cannot_be_served(place: Path) -> None:
    model = "model.safetensors"
    assert "two models are called model" in refused(place, model, f"again/{model}")
    assert "decoder" in refused(place, model, work=Work(workers=0))
    assert "another model" in refused(place, model, indexes=[place / "foreign.npy"])
    assert "has an index already" in refused(place, model, indexes=[place / "index.npy"] * 2)
    assert "nowhere.npy" in refused(place, model, indexes=[place / "nowhere.npy"])
    assert "nowhere.csv" in refused(place, model, names=place / "nowhere.csv")
    assert "nowhere" in refused(place, "nowhere.safetensors")
    assert "this model has none" in refused(place, model, min_score="auto")


def test_an_address_that_cannot_be_had(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: Address already in use" in refused(place, settings=Settings(port=port))
    assert "--host 192.0.2.1" in refused(place, settings=Settings(host="192.0.2.1", port=0))
    assert "--host no such name" in refused(place, settings=Settings(host="no such name"))


def test_connections_leave_files_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a flood of them would keep readers from being started."""
    asked: list[tuple[int, int]] = []
    for limits, most in (((1024, 4096), 1000), ((1024, 1024), 824), ((100, 100), 10), ((1 << 20, -1), 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=limits: limits)
        monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
        assert _most_connections() == most
    assert asked == [(2400, 4096), (1024, 1024), (100, 100), (1 << 20, -1)]


def test_a_token_file_has_a_token(tmp_path: Path) -> None:
    bad = {"empty": b"", "blank": b"\nsecond line", "binary": b"\xff\xfe" * 20, "short": b"short\n"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name in (*bad, "missing", "."):
        with pytest.raises(ConfigError, match="token"):
            command(token_file=tmp_path / name)
    with pytest.raises(ConfigError, match="contradict"):
        command(token_file=tmp_path / "short", token=False)


def test_what_is_of_this_computer_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "birds.example.org", "")))
