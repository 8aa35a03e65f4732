"""Every code block of README.md and docs/ runs.

Blocks of a document run in order, in a folder of their own that holds

* ``photos/``: a few pictures without labels,
* ``data/train/`` and ``data/val/``: one folder of pictures for each species,
* ``model.safetensors``: a small untrained network with these species as classes.

``python`` blocks share their names within a document. ``bash`` blocks are scripts, and so are the lines after ``$`` of
``console`` blocks; in both, ``birder`` is this checkout, and ``make …``, ``git clone …`` and ``cd …`` are not run, but
the targets of make must exist. ``toml`` and ``json`` must parse. An HTML comment in the line before a block makes an
exception: ``<!-- test: skip: REASON -->``, or ``<!-- test: slow -->``, which leaves the block to ``pytest -m slow``.
With ``<!-- test: serve -->``, the last command of a block is one that serves: it runs until the next such block or the
end of the document, at a port of its own, which stands for the port 8000 in the blocks that follow.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

FENCE = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,}) *(?P<language>[\w+-]*)")
EXCEPTION = re.compile(r"<!-- test: (?:(?P<slow>slow)|(?P<serve>serve)|skip: (?P<reason>\S.*)) -->")
LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)#\s]+)")
TEXT = {"csv", "markdown", "mermaid", "text"}
TIMEOUT_S = 300  # of what hangs; one that trains takes over 120 where other tests use the other core of a slow machine
SERVED_AT = "http://127.0.0.1:8000/"


@dataclass(frozen=True)
class Block:
    """A fenced piece of a document."""

    language: str
    text: str
    line: int
    """Number of its first line."""
    slow: bool = False
    reason: str | None = None
    """Why it is not run."""
    serves: bool = False
    """Whether its last command serves until it is ended."""


def blocks_of(document: str) -> Iterator[Block]:
    lines = document.splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number].rstrip())
        number += 1
        if not fence:
            continue
        before = lines[number - 2].strip() if number > 1 else ""
        exception = EXCEPTION.fullmatch(before)
        assert exception or not before.startswith("<!-- test"), f"line {number - 1}: what does {before} mean?"
        start = number
        while number < len(lines) and lines[number].strip() != fence["marks"]:
            number += 1
        assert number < len(lines), f"line {start}: the block does not end"
        text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[start:number])
        said = exception.groupdict() if exception else {}
        slow, serves = said.get("slow") is not None, said.get("serve") is not None
        yield Block(fence["language"], text, start + 1, slow, said.get("reason"), serves)
        number += 1


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a console or bash block that are to be run."""
    if block.language == "console":
        lines = re.sub(r"\\\n(> )?", "", block.text).splitlines()
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    else:
        commands = block.text.replace("\\\n", "").splitlines()
    for line in commands:
        parts = [part for part in re.split(r"\s*&&\s*", line) if not left_out(part)]
        if parts:
            yield " && ".join(parts)


def left_out(command: str) -> bool:
    """Whether a command is one that documents may show though it is not run here; targets of make must exist."""
    words = command.split()
    if words[:1] == ["make"]:
        targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        unknown = [word for word in words[1:] if re.fullmatch(r"[a-z][\w-]*", word) and word not in targets]
        assert not unknown, f"the Makefile has no target {', '.join(unknown)}"
        return True
    return words[:1] == ["cd"] or words[:2] == ["git", "clone"]


def environment_of(folder: Path) -> dict[str, str]:
    """What a command of a document finds in its environment."""
    return os.environ | {
        "BIRDER_HOME": str(folder / ".birder"),
        "COLUMNS": "120",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(folder / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }


def run_commands(commands: list[str], folder: Path) -> None:
    """Run the commands as one script that stops at the first failure."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env=environment_of(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if result.returncode:
        raise AssertionError(f"status {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """A command that serves, at a port of its own: the line that it prints first. It must end well when told to."""
    with (
        open(folder / "server.log", "wb") as log,
        subprocess.Popen(
            ["bash", "-c", f"exec {command} --port 0"],
            cwd=folder,
            env=environment_of(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        too_long = threading.Timer(TIMEOUT_S, server.kill)
        too_long.start()
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address.startswith("http"):
                server.wait()
                raise AssertionError(f"no address, but {address!r}\n{(folder / 'server.log').read_text()[-4000:]}")
            yield address
            server.terminate()
            assert server.wait(TIMEOUT_S) == 0, f"status {server.returncode} at the end of {command}"
        finally:
            too_long.cancel()
            server.kill()


def run_block(block: Block, name: str, folder: Path, names: dict[str, Any]) -> None:
    if block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), names)
    elif block.language in ("bash", "console"):
        if commands := list(commands_of(block)):
            run_commands(commands, folder)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    else:
        known = ", ".join(sorted({"python", "bash", "console", "toml", "json", *TEXT}))
        assert block.language in TEXT, f"name the language of the block, one of {known}; not {block.language!r}"


def run_document(document: Path, folder: Path, *, slow: bool) -> None:
    """Run the blocks of a document, the slow ones only if asked for; a failure names the line."""
    names: dict[str, Any] = {"__name__": "__main__"}
    address = SERVED_AT
    with ExitStack() as server:
        for block in blocks_of(document.read_text(encoding="utf-8")):
            if block.reason is not None or (block.slow and not slow):
                continue
            try:
                block = replace(block, text=block.text.replace(SERVED_AT, address))
                if block.serves:
                    server.close()
                    *before, last = commands_of(block)
                    run_commands(before, folder)
                    address = server.enter_context(serving(last, folder)).partition("#")[0]
                else:
                    run_block(block, document.name, folder, names)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{document.name}:{block.line} ({block.language}): {type(error).__name__}: {error}")


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that documents take for granted."""
    from birder.data.drawn import DrawnBirds, write_folder
    from birder.model_file import save_model
    from birder.networks import create_network
    from birder.signature import rgb_stats

    folder = tmp_path_factory.mktemp("playground")
    birds = DrawnBirds(families=2, species=4, size=(96, 96))
    for split, count in (("train", 4), ("val", 2)):
        write_folder(birds, folder / "data" / split, count, split=split)
    (folder / "photos").mkdir()
    for number, picture in enumerate(sorted((folder / "data" / "val").rglob("*.jpg"))):
        shutil.copy(picture, folder / "photos" / f"IMG_{number:04}.jpg")

    classes = sorted(path.name for path in (folder / "data" / "train").iterdir() if path.is_dir())
    network = create_network(
        "convnext_v2_atto", len(classes), size=(64, 64), in_channels=(8, 16, 24, 32), num_layers=(1, 1, 2, 1)
    )
    class_to_idx = {name: label for label, name in enumerate(classes)}
    save_model(folder / "model.safetensors", network, class_to_idx=class_to_idx, rgb_stats=rgb_stats("birder"))
    return folder


@pytest.fixture
def workplace(playground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the playground, as the current folder, with ``birder`` as a command."""
    folder = tmp_path / "here"
    shutil.copytree(playground, folder)
    (folder / ".bin").mkdir()
    command = folder / ".bin" / "birder"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m birder "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BIRDER_HOME", str(folder / ".birder"))
    return folder


def document_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_the_blocks_run(document: Path, workplace: Path) -> None:
    run_document(document, workplace, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if "test: slow" in path.read_text(encoding="utf-8")], ids=document_id
)
def test_the_slow_blocks_run(document: Path, workplace: Path) -> None:
    run_document(document, workplace, slow=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert not [link for link in links if not (document.parent / link).exists()]


def test_the_playground_has_what_documents_take_for_granted(workplace: Path) -> None:
    document = workplace / "doc.md"
    document.write_text(
        "```console\n$ birder predict model.safetensors photos --output results.csv\n```\n"
        "```python\nfrom pathlib import Path\nassert Path('results.csv').read_text().count('IMG_') == 8\n```\n"
        "```bash\nfor split in train val; do test $(ls -d data/$split/*/ | wc -l) = 4; done\n```\n",
        encoding="utf-8",
    )
    run_document(document, workplace, slow=False)


A_DOCUMENT = """
```python
x = 1
```
Then, in a list:

1.  so

    ~~~python
    y = x + 1
    ~~~

<!-- test: slow -->
```bash
false
```
<!-- test: skip: needs the network -->
```python
1 / 0
```
<!-- test: serve -->
```console
$ birder serve
```
"""


def test_a_document_is_cut_into_blocks() -> None:
    assert list(blocks_of(A_DOCUMENT)) == [
        Block("python", "x = 1", line=3),
        Block("python", "y = x + 1", line=10),
        Block("bash", "false", line=15, slow=True),
        Block("python", "1 / 0", line=19, reason="needs the network"),
        Block("console", "$ birder serve", line=23, serves=True),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nx = 1\n```\n```python\nassert x == 2\n```", r"doc.md:5 \(python\): AssertionError"),
        ("```python\nraise SystemExit(3)\n```", "SystemExit: 3"),
        ("```bash\necho bad news\nfalse\ntrue\n```", "status 1\n *bad news"),
        ("```console\n$ exit 7\n```", "status 7"),
        ("```console\n$ make demo && make coffee\n```", "no target coffee"),
        ("```toml\na = \n```", "TOMLDecodeError"),
        ("```json\n{'a': 1}\n```", "JSONDecodeError"),
        ("```\nx\n```", "name the language"),
    ],
)
def test_a_bad_block_fails_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match=problem):
        run_document(document, tmp_path, slow=True)


def test_an_exception_needs_a_reason() -> None:
    with pytest.raises(AssertionError, match="line 1: what does <!-- test: skip: --> mean"):
        list(blocks_of("<!-- test: skip: -->\n```python\n1 / 0\n```"))


def test_what_is_left_out_and_what_is_run() -> None:
    shown = "$ git clone x && cd x && echo 1\n1\n$ make test PHOTOS='a b'\n$ echo 2 \\\n> 3"
    assert list(commands_of(Block("console", shown, 1))) == ["echo 1", "echo 2 3"]


A_SERVER = """
import http.server, signal, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
server = http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1])))
print(f"http://127.0.0.1:{server.server_port}/#token=x", flush=True)
server.serve_forever()
"""
ASKED = """
<!-- test: serve -->
```console
$ echo hello > said.txt
$ python server.py STATUS
```
```python
from urllib.request import urlopen

text = urlopen("http://127.0.0.1:8000/said.txt").read()
assert text == b"EXPECTED\\n"
```
"""


@pytest.mark.parametrize(
    ("status", "expected", "problem"),
    [(0, "hello", None), (0, "bye", r"doc.md:8 \(python\): AssertionError"), (3, "hello", "status 3 at the end of")],
)
def test_blocks_ask_the_server_of_the_document(tmp_path: Path, status: int, expected: str, problem: str | None) -> None:
    (tmp_path / "server.py").write_text(A_SERVER, encoding="utf-8")
    document = tmp_path / "doc.md"
    document.write_text(ASKED.replace("STATUS", str(status)).replace("EXPECTED", expected), encoding="utf-8")
    if problem is None:
        run_document(document, tmp_path, slow=False)
        return
    with pytest.raises((pytest.fail.Exception, AssertionError), match=problem):
        run_document(document, tmp_path, slow=False)


def test_a_server_that_does_not_start_fails_with_its_line(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("<!-- test: serve -->\n```console\n$ echo bad news >&2 && false\n```\n", encoding="utf-8")
    with pytest.raises(
        pytest.fail.Exception, match=r"doc.md:3 \(console\): AssertionError: no address, but ''\nbad news"
    ):
        run_document(document, tmp_path, slow=False)
