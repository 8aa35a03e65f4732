"""``birder models``: the list, what is known of a model, downloads; and names where a model is asked for."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from birder.catalogue import catalogue, list_pretrained_models
from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats
from tests.loopback import Loopback, add_to_catalogue, home, server

__all__ = ["home", "server"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),  # sys.argv is set here
    pytest.mark.usefixtures("home"),
]

Run = Callable[..., tuple[int, str, str]]
SEED = "convnext_v2_tiny_intermediate-il-common"


@pytest.fixture
def wren(home: Path, server: Loopback, tmp_path: Path) -> Path:
    """The source of a published model ``wren``, which is not on this computer yet."""
    net = create_network("convnext_v2_atto", 4, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    write_folder(DrawnBirds(families=2, species=4, size=(40, 40)), tmp_path / "data", 2)
    names = sorted(folder.name for folder in (tmp_path / "data").iterdir() if folder.is_dir())
    path = tmp_path / "source.pt"
    save_model(path, net, class_to_idx={name: label for label, name in enumerate(names)}, rgb_stats=rgb_stats("birder"))
    digest = server.publish("/models/wren.pt", path)
    add_to_catalogue(home, "wren", sha256=digest, mib=0.1, url=f"{server.url}/models", tag="intermediate-kenya")
    return path


def rows(birder: Run, *words: object) -> dict[str, list[str]]:
    """The lines of the list, by name."""
    code, out, errors = birder("models", *words)
    assert (code, errors) == (0, "")
    cells = [line.split("\t") for line in out.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_all_models(birder: Run) -> None:
    listed = rows(birder)
    assert list(listed) == list_pretrained_models()
    assert listed[SEED] == ["convnext_v2_tiny", "256 x 256", "il-common", "107.5", "", ""]
    assert listed["alexnet_inat21"] == [
        "alexnet",
        "224 x 224",
        "inat21",
        "374.6",
        "",
        "network alexnet is not supported yet",
    ]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["*eu-common*"], lambda entry: "eu-common" in entry.name),
        (["VIT_*"], lambda entry: entry.name.startswith("vit_")),
        (["--network", "regnet_y_*"], lambda entry: entry.network.startswith("regnet_y_")),
        (["--region", "il-all"], lambda entry: entry.region == "il-all"),
        (["--size", 384], lambda entry: 384 in entry.resolution),
        (["--task", "object_detection"], lambda entry: entry.task == "object_detection"),
        (["*256px", "--region", "eu*"], lambda entry: "eu-common256px" in entry.name),
    ],
)  # fmt: skip
def test_a_choice(words: list[object], chosen: Callable[[Any], bool], birder: Run) -> None:
    expected = {name for name, entry in catalogue().items() if chosen(entry)}
    assert set(rows(birder, *words)) == expected
    assert 0 < len(expected) < 100


def test_as_json(birder: Run) -> None:
    _, out, _ = birder("models", "--format", "json")
    listed = json.loads(out)
    assert [row["name"] for row in listed] == list_pretrained_models()
    row = next(row for row in listed if row["name"] == SEED)
    entry = catalogue()[SEED]
    assert row["formats"]["pt"] == {"address": entry.address("pt"), "mib": 107.5, "sha256": entry.formats["pt"].sha256}
    assert (row["size"], row["region"], row["licence"], row["supported"]) == (
        [256, 256],
        "il-common",
        "apache-2.0",
        True,
    )
    assert {row["supported"] for row in listed} == {True, False}
    assert all(row["supported"] == (row["obstacle"] == "") for row in listed)


def test_a_table_on_a_terminal(birder: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birder.cli.models._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = birder("models", "a*")
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert len(lines) == len(list_pretrained_models("a*"))
    assert [cell.strip() for cell in lines[0].strip("│").split("│")] == [
        *("alexnet_inat21", "alexnet", "224 x 224", "inat21", "374.6", "", "not supported yet")
    ]


def test_no_torch_and_nothing_of_the_hub_but_constants(root: Path) -> None:
    code = (
        "import sys\nfrom birder.cli.__main__ import main\nsys.argv = ['birder', 'models']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, 'huggingface_hub.file_download' in sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == "False False\n"
    assert len(result.stdout.splitlines()) == 223


def test_what_is_known_before_the_file_is_there(birder: Run) -> None:
    _, out, _ = birder("models", "info", SEED)
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    entry = catalogue()[SEED]
    assert facts["network"] == "convnext_v2_tiny"
    assert facts["size"] == "256 x 256"
    assert facts["licence"] == "apache-2.0"
    assert facts["parameters"] == "28,635,496 with 1000 classes"
    assert facts["local"] == f"no; birder models download {SEED}"
    assert facts["pt"] == f"107.5 MiB, {entry.address('pt')}"
    assert facts["sha256"] == entry.formats["pt"].sha256
    assert facts["supported"] == "yes"


def test_what_is_known_of_a_model_that_cannot_be_loaded(birder: Run) -> None:
    _, out, _ = birder("models", "info", "vit_l14_pn_quick_gelu_openai-clip")
    assert "licence     not in the catalogue; see the page of the model\n" in out
    _, out, _ = birder("models", "info", "alexnet_inat21")
    assert "supported   no: network alexnet is not supported yet\n" in out


def test_a_download_and_what_is_known_then(birder: Run, wren: Path, home: Path) -> None:
    place = home / "models" / "wren.pt"
    assert rows(birder, "wren")["wren"][4] == ""
    assert birder("models", "download", "wren") == (0, f"{place}\n", "")
    assert place.read_bytes() == wren.read_bytes()
    assert rows(birder, "wren")["wren"] == ["convnext_v2_atto", "32 x 32", "kenya", "0.1", str(place), ""]
    _, out, _ = birder("models", "info", "wren", "--format", "json")
    facts = json.loads(out)
    net = create_network("convnext_v2_atto", 4, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    count = sum(weight.numel() for weight in net.parameters())
    assert facts["parameters"] == {"count": count, "num_classes": 4}
    assert len(facts["classes"]) == 4 and facts["local"] == str(place)
    _, out, _ = birder("models", "info", "wren")
    assert f"parameters  {count:,} with 4 classes\n" in out
    assert f"classes     {', '.join(facts['classes'])}\n" in out


def test_a_download_to_a_folder(birder: Run, wren: Path, tmp_path: Path, server: Loopback) -> None:
    place = tmp_path / "trip" / "wren.pt"
    assert birder("models", "download", "wren", "--to", place.parent) == (0, f"{place}\n", "")
    server.asked.clear()
    assert birder("models", "download", "wren", "--to", place.parent) == (0, f"{place}\n", "")
    assert server.asked == []
    assert hashlib.sha256(place.read_bytes()).digest() == hashlib.sha256(wren.read_bytes()).digest()


def test_a_name_where_a_model_is_asked_for(birder: Run, wren: Path, tmp_path: Path) -> None:
    photos = tmp_path / "data"
    code, named, _ = birder("predict", "wren", photos, "--device", "cpu")
    assert code == 0 and len(named.splitlines()) == 8
    assert birder("predict", wren, photos, "--network", "convnext_v2_atto", "--device", "cpu")[:2] == (0, named)
    code, out, _ = birder("evaluate", "wren", "--data", photos, "--device", "cpu")
    assert code == 0 and "8 pictures" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "wrne", "."], "no published model is called 'wrne', and no file; did you mean wren?"),
        (["evaluate", "mnie.pt", "--data", "."], "mnie.pt: no such file; did you mean mine.pt?"),
        (
            ["predict", "alexnet_inat21", "."],
            "alexnet_inat21 is a published model, but its network alexnet is not supp",
        ),
        (["models", "unicorn"], "no published model fits 'unicorn'"),
        (["models", "--region", "eu-comon"], "no published model fits 'eu-comon'; did you mean eu-common"),
        (["models", "--network", "vit_l61"], "no published model fits 'vit_l61'; did you mean vit_l16"),
        (["models", "--size", "1"], "no published model fits these options"),
        (["models", "info", "wrne"], "no published model is called 'wrne'; did you mean wren?"),
        (["models", "download", "wren", "wrne"], "no published model is called 'wrne'; did you mean wren?"),
        (["models", "download", "wren", "--file-format", "pt2"], "wren is published as pt, not as 'pt2'"),
        (["models", "download", "gone"], "could not be downloaded: there is no such file (HTTP 404)"),
    ],
)
def test_wrong_use(
    words: list[str],
    message: str,
    birder: Run,
    wren: Path,
    home: Path,
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_to_catalogue(home, "gone", sha256="0" * 64, mib=1, url=f"{server.url}/models")
    monkeypatch.chdir(wren.parent)
    Path("mine.pt").touch()
    code, out, errors = birder(*words)
    assert (code, out) == (2, "")
    assert message in errors and errors.startswith("birder: ") and errors.count("\n") == 1
