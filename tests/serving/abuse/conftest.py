"""A server that endures what these tests do to it, all of them the same one.

After each case it must still be the same process, have touched no file, have grown by no more than a bound, and answer
a good request as ``birder predict`` does. Sizes and times are bounded; nothing leaves this computer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from birder.inference.options import Options
from birder.inference.predictor import Predictor
from tests.decoders import add_decoders, eventually
from tests.serving.live import Live
from tests.serving.small import bird, small_model
from tests.serving.watched import Watched

SECONDS = 4
"""The time that a request may take."""
MIB, FILES, QUEUE = 1, 20, 24
LIMITS = ("--request-seconds", str(SECONDS), "--max-body-mib", str(MIB), "--max-files", str(FILES))
GROWTH_MIB = 60
"""What the server and its readers may take more than after their first request, whatever they are sent."""
LONG = "x" * 10_000


class Place(NamedTuple):
    """The server's surroundings: its folders, all empty or with what nobody may read."""

    model: Path
    cwd: Path
    modules: Path
    gates: Path
    """Where a picture of the kind WAIT finds what it waits for."""
    environment: dict[str, str]
    watched: Watched


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, good: bytes) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    folders = {name: root / name for name in ("work", "tmp", "home", "cache", "modules", "gates")}
    for folder in folders.values():
        folder.mkdir()
    (root / "secret.jpg").write_bytes(good)
    (folders["home"] / "secret.jpg").write_bytes(good)
    add_decoders(folders["modules"])
    model = small_model(folders["modules"])
    surroundings = {"TMPDIR": folders["tmp"], "HOME": folders["home"], "BIRDER_HOME": folders["cache"]}
    watched = Watched([root, *(folders[name] for name in ("work", "tmp", "home", "cache"))])
    yield Place(
        model,
        folders["work"],
        folders["modules"],
        folders["gates"],
        {name: str(path) for name, path in surroundings.items()},
        watched,
    )
    watched.close()


@pytest.fixture(scope="session")
def live(place: Place) -> Iterator[Live]:
    """The server; all cases are played to the same one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place.modules)
        server = Live(place.model, *LIMITS, "--queue", str(QUEUE), cwd=place.cwd, environment=place.environment)
    with server:
        yield server


@pytest.fixture(scope="session")
def good() -> bytes:
    return bird(0)


@pytest.fixture(scope="session")
def expected(place: Place, tmp_path_factory: pytest.TempPathFactory, good: bytes) -> dict[str, Any]:
    """What ``birder predict`` says of the good picture."""
    path = tmp_path_factory.mktemp("good") / "good.jpg"
    path.write_bytes(good)
    options = Options(backend="torch", precision="fp32", threads=1, workers=0)
    with Predictor(place.model, options) as predictor:
        (row,) = predictor.stream([path])
    return {"status": row.status, "labels": list(row.labels), "scores": list(row.scores)}


@pytest.fixture(scope="session")
def memory(live: Live, good: bytes) -> float:
    """MiB after some requests."""
    for _ in range(20):
        live.predict_all([("good.jpg", good)] * 5).rows()
    return live.memory()


@pytest.fixture(autouse=True)
def stays_well(live: Live, good: bytes, expected: dict[str, Any], memory: float, place: Place) -> Iterator[None]:
    place.watched.touched()
    said = len(live.said)
    yield
    assert live.process.poll() is None, live.said
    assert eventually(lambda: live.under_way() == 0, 3 * SECONDS)
    assert live.predict(good).predictions() == [expected]
    assert live.memory() < memory + GROWTH_MIB
    assert place.watched.touched() == []
    assert list(place.cwd.iterdir()) == []
    assert "Traceback" not in live.said[said:], live.said[said:]


TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="session")
def guarded(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a token, for pages of one other site."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN + "\n")
    words = ("--token-file", str(file), "--origin", "https://birds.example")
    with Live(place.model, *LIMITS, *words, cwd=place.cwd, environment=place.environment) as server:
        yield server
