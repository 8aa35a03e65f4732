"""``birder networks``: names, sizes, patterns."""

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest

from birder.gallery import gallery
from birder.networks import create_network, list_networks

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, dict[str, list[str]], str]]

# Millions of parameters with 1000 classes, of table 15 of the ConvNeXt V2 paper.
PUBLISHED = {
    "convnext_v2_atto": 3.7,
    "convnext_v2_femto": 5.2,
    "convnext_v2_pico": 9.1,
    "convnext_v2_nano": 15.6,
    "convnext_v2_tiny": 28.6,
    "convnext_v2_base": 89,
    "convnext_v2_large": 198,
    "convnext_v2_huge": 660,
}


@pytest.fixture
def run(birder: Callable[..., tuple[int, str, str]]) -> Run:
    """Run a command line; exit code, the table's rows by name, and what went to the error stream."""

    def call(*words: object) -> tuple[int, dict[str, list[str]], str]:
        code, out, err = birder("networks", *words)
        rows = [line.strip("│").split("│") for line in out.splitlines() if line.startswith("│ ") and line[2] != " "]
        return code, {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}, err

    return call


def test_all_networks_with_their_sizes(run: Run) -> None:
    code, rows, errors = run()
    assert (code, errors) == (0, "")
    assert list(rows) == list_networks()
    for name, millions in PUBLISHED.items():
        assert float(rows[name][0]) == pytest.approx(millions, rel=0.005), name


def test_a_row_is_what_the_network_is(run: Run) -> None:
    _, rows, _ = run("convnext_v2_atto")
    network = create_network("convnext_v2_atto", 1000)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    height, width = network.size
    figures = [f"{parameters / 1e6:.1f}", "0.5", str(network.embedding_size), f"{height}x{width}"]
    assert rows == {"convnext_v2_atto": figures}


def test_json_has_the_exact_numbers(birder: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = birder("networks", "convnext_v2_[an]*", "--format", "json")
    assert code == 0
    assert json.loads(out) == {name: asdict(gallery()[name]) | {"default_size": [224, 224]} for name in json.loads(out)}
    assert list(json.loads(out)) == ["convnext_v2_atto", "convnext_v2_nano"]


@pytest.mark.parametrize("pattern", ["*_v2_*o", "CONVNEXT_V2_N*", "convnext_v2_[ab]*"])
def test_a_pattern_chooses(run: Run, pattern: str) -> None:
    code, rows, _ = run(pattern)
    assert code == 0
    assert list(rows) == list_networks(pattern)
    assert 0 < len(rows) < len(list_networks())


def test_the_pattern_has_a_name_too(run: Run) -> None:
    assert run("--pattern", "*atto") == run("*atto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convnext_v2_ato"], "no network matches 'convnext_v2_ato'; did you mean convnext_v2_atto"),
        (["unicorn*"], "no network matches 'unicorn*'"),
        (["--patern", "*"], "Did you mean --pattern?"),
        (["*atto", "*nano"], "Unused Tokens: ['*nano']"),
    ],
)
def test_wrong_use(run: Run, words: list[str], message: str) -> None:
    code, rows, errors = run(*words)
    assert (code, rows) == (2, {})
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors
