"""A browser, and a server of two models whose species have names that do their worst."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats
from tests.serving.live import Live
from tests.serving.page.visit import GERMAN, HEBREW, SPECIES, SURE, Opened, Settled

CARD = """---
license: other
---
# A card of <b>ours</b>

Two *good* [words](https://example.org/x) and `code_of_it`.

- one
    - inner
- two

| figure | value |
| --- | --- |
| top-1 | 78 % |

```python
print("<script>window.hacked = 2</script>")
```
"""


@pytest.fixture(scope="module")
def playwright() -> Any:
    return pytest.importorskip("playwright.sync_api", reason="pages are looked at with playwright")


def tiny_model(folder: Path, name: str) -> Path:
    """A model whose answers mean nothing, of species with names that do their worst."""
    torch.manual_seed(1)
    sizes = {"size": (32, 32), "in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
    network = create_network("convnext_v2_atto", len(SPECIES), **sizes)
    torch.nn.init.normal_(network.get_parameter("classifier.weight"))
    labels = {species: label for label, species in enumerate(SPECIES)}
    path = folder / f"{name}.safetensors"
    save_model(path, network, class_to_idx=labels, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of two models, the first with a card, and names in two languages."""
    folder = tmp_path_factory.mktemp("served")
    first, second = tiny_model(folder, "garden"), tiny_model(folder, "forest")
    first.with_suffix(".md").write_text(CARD, encoding="utf-8")
    with open(folder / "names.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "de", "he"])
        table.writerows([name, GERMAN.get(name, ""), HEBREW.get(name, "")] for name in SPECIES)
    words = (str(second), "--names", str(folder / "names.csv"), "--min-score", str(SURE))
    with Live(first, *words) as started:
        yield started


@pytest.fixture
def opened(browser: Any, live: Live) -> Iterator[Opened]:
    """Opens the page; a request to elsewhere, or an error in the console that is not expected, fails the test."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def make(
        at: str = "", *, expected: str = "", prepare: Callable[[Any], None] = lambda page: None, **options: Any
    ) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}, "locale": "en-GB"} | options))
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()

        def heard(message: Any) -> None:
            if message.type in ("error", "warning") and not (expected and expected in message.text):
                troubles.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((live.address, f"blob:{live.address}", "data:")):
                troubles.append(f"asked for {request.url[:100]}")

        page.on("console", heard)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", asked)
        prepare(page)
        page.goto(live.address + at)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture
def settled(playwright: Any) -> Settled:
    """Waits until so many pictures are there and none is under way."""

    def wait(page: Any, count: int) -> None:
        playwright.expect(page.locator("#kinds [data-kind=all] .number")).to_have_text(f"{count:,}", timeout=30_000)
        playwright.expect(page.locator("#progress")).to_have_class("idle", timeout=30_000)

    return wait
