"""What can be known of the container without an engine: the files fit each other, the server, and this repository.

Nothing here builds or runs an image.
"""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from birder.serving.settings import Limits

yaml = pytest.importorskip("yaml")

INSTRUCTIONS = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR")
}


class Instruction(NamedTuple):
    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Of the form in brackets, its items."""
        return list(json.loads(self.rest[self.rest.index("[") :]))


def parsed(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; lines that end in a backslash go on."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", "", lines)
    return [Instruction(*line.split(maxsplit=1)) for line in lines.splitlines() if line.strip()]


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Cut before each FROM."""
    starts = [number for number, each in enumerate(instructions) if each.word == "FROM"]
    return [instructions[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> list[Instruction]:
    return parsed((root / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def final(dockerfile: list[Instruction]) -> dict[str, Instruction]:
    """The last of each instruction of the stage that is kept."""
    return {each.word: each for each in stages(dockerfile)[-1]}


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((root / "compose.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def service(compose: dict[str, Any]) -> dict[str, Any]:
    (service,) = compose["services"].values()
    return dict(service)


@pytest.fixture(scope="module")
def options() -> str:
    """What ``birder serve --help`` says."""
    command = [sys.executable, "-m", "birder", "serve", "--help"]
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_a_file_is_cut_into_instructions() -> None:
    text = '# a\nFROM a:1 AS b\nRUN x \\\n    # why\n    && y\n\nCMD ["c"]\n'
    assert parsed(text) == [("FROM", "a:1 AS b"), ("RUN", "x && y"), ("CMD", '["c"]')]
    assert parsed(text)[-1].words == ["c"]
    assert [[each.word for each in stage] for stage in stages(parsed(text + text))] == [["FROM", "RUN", "CMD"]] * 2


def test_the_instructions_are_known(dockerfile: list[Instruction]) -> None:
    assert {each.word for each in dockerfile} <= INSTRUCTIONS
    assert dockerfile[0].word == "FROM"


def test_the_base_is_pinned(dockerfile: list[Instruction], root: Path) -> None:
    """Each stage begins from one image with a tag that names a version which birder takes, or from a stage before."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known: set[str] = set()
    for stage in stages(dockerfile):
        image, _, name = stage[0].rest.partition(" AS ")
        if image not in known:
            version = re.fullmatch(r"python:(3\.\d+)-slim-[a-z]+", image)
            assert version, image
            assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]
        known.add(name)


def test_no_address_of_an_index(root: Path) -> None:
    for name in ("Dockerfile", "compose.yaml", ".dockerignore"):
        addresses = re.findall(r"https?://[^/'\"\s]+", (root / name).read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://127.0.0.1:8000"}, name


def test_what_is_copied_is_there_and_is_let_in(dockerfile: list[Instruction], root: Path) -> None:
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*", "all is left out but what is named"
    let_in = {line.removeprefix("!/") for line in patterns if line.startswith("!/")}
    sources = [
        source
        for each in dockerfile
        if each.word == "COPY" and not each.rest.startswith("--from")
        for source in each.rest.split()[:-1]
    ]
    assert {source.split("/")[0] for source in sources} == let_in
    for source in sources:
        assert (root / source).exists(), source
    if (root / ".git").exists():
        subprocess.run(["git", "ls-files", "--error-unmatch", *sources], cwd=root, check=True, capture_output=True)


def test_what_is_installed_is_in_the_project(dockerfile: list[Instruction], root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [extras for each in dockerfile for extras in re.findall(r"\.\[([\w,]+)\]", each.rest)]
    assert asked
    assert {extra for extras in asked for extra in extras.split(",")} <= set(project["optional-dependencies"])
    assert "serve" in asked[0].split(",")


def test_the_server_is_started_by_a_user_without_rights(final: dict[str, Instruction], dockerfile: Any) -> None:
    user, group = final["USER"].rest.split(":")
    assert int(user) > 0 < int(group)
    made = " ".join(each.rest for each in stages(dockerfile)[-1] if each.word == "RUN")
    assert f"--uid {user}" in made
    assert f"--gid {group}" in made


def test_the_command_is_one_of_birder(final: dict[str, Instruction], service: dict[str, Any], options: str) -> None:
    from birder.cli.__main__ import app

    program, command = final["ENTRYPOINT"].words
    assert program == "birder"
    assert command in app  # type: ignore[operator]
    for words in (final["CMD"].words, service["command"]):
        for word in words:
            assert not word.startswith("-") or re.search(rf"{word}\b", options), word
        assert words[words.index("--host") + 1] == "0.0.0.0"


def test_an_option_that_is_not_there_would_be_seen(options: str) -> None:
    assert re.search(r"--host\b", options)
    assert not re.search(r"--hosts\b", options)


def test_the_home_is_one_that_can_be_written_to(
    final: dict[str, Instruction], service: dict[str, Any], compose: dict[str, Any]
) -> None:
    (home,) = final["VOLUME"].words
    environment = dict(word.split("=", 1) for word in final["ENV"].rest.split())
    assert environment["BIRDER_HOME"] == home
    assert environment["HF_HOME"].startswith(f"{home}/")
    ((name, mounted),) = [volume.split(":") for volume in service["volumes"]]
    assert mounted == home
    assert name in compose["volumes"]


def test_the_token_is_where_the_command_looks_for_it(service: dict[str, Any], compose: dict[str, Any]) -> None:
    (name,) = service["secrets"]
    words = service["command"]
    assert words[words.index("--token-file") + 1] == f"/run/secrets/{name}"
    assert set(compose["secrets"][name]) == {"file"}


def test_the_service_may_do_little(service: dict[str, Any], final: dict[str, Instruction]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["pids_limit"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(service)
    (temporary,) = service["tmpfs"]
    assert temporary.startswith("/tmp:size=")
    (port,) = service["ports"]
    assert port == f"127.0.0.1:{final['EXPOSE'].rest}:{final['EXPOSE'].rest}"


def test_what_was_accepted_can_be_finished(service: dict[str, Any]) -> None:
    seconds = int(service["stop_grace_period"].removesuffix("s"))
    assert seconds > Limits().request_seconds + 5  # with which the server itself ends what is left


@pytest.fixture
def answering() -> Iterator[tuple[int, list[int]]]:
    """A port, and the status that is answered there at ``/readyz``."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port, status
        server.shutdown()
        thread.join()


def test_health_is_what_the_server_says(final: dict[str, Instruction], answering: tuple[int, list[int]]) -> None:
    """The command of the image, run here: Python and nothing else, as the image has no curl."""
    port, status = answering
    program, *words = final["HEALTHCHECK"].words
    assert program == "python"
    assert f":{final['EXPOSE'].rest}/" in words[-1]
    command = [sys.executable, *words[:-1], words[-1].replace(f":{final['EXPOSE'].rest}/", f":{port}/")]
    assert subprocess.run(command, check=False).returncode == 0
    status[0] = 503
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
