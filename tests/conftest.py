"""What all tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# The same examples each time, and no limit in milliseconds: the machine may be busy.
settings.register_profile("birder", derandomize=True, deadline=None, database=None)
settings.load_profile("birder")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered from run to run is not the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIRDER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded numbers and photographs beside the repository; the test is skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("there is no folder 'shared' beside the repository")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped without it.

    It ends with the module: while it runs, nothing else of this process can have an event loop.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are looked at with playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("pages are looked at with chromium, which is not installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
