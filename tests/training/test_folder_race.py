"""Commands that begin in one free folder at the same moment: one gets it, whatever the order of their steps."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from birder.errors import ConfigError
from birder.training import folder as folder_module
from birder.training.folder import RunFolder, open_folder
from birder.training.recipe import Recipe, read_recipe

RECIPES = [Recipe(data="birds", epochs=epochs, network="convnext_v2_atto") for epochs in (5, 6)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path | None], list[Any]]:
    """Two commands that both see the folder free before either of them writes; what each of them gets."""
    monkeypatch.chdir(tmp_path)
    both_have_looked = threading.Barrier(2)
    seen = threading.local()
    is_free = folder_module._is_free

    def look(path: Path) -> bool:
        free = is_free(path)
        if not hasattr(seen, "path"):
            seen.path = path
            both_have_looked.wait(timeout=10)
        return free

    monkeypatch.setattr(folder_module, "_is_free", look)

    def run(out: Path | None) -> list[Any]:
        with ThreadPoolExecutor(2) as threads:
            futures: list[Future[RunFolder]] = [threads.submit(open_folder, recipe, out) for recipe in RECIPES]
        return [future.exception() or future.result() for future in futures]

    return run


def test_one_of_two_commands_gets_a_folder(together: Callable[[Path | None], list[Any]]) -> None:
    got = together(Path("run"))
    (winner,) = (number for number, result in enumerate(got) if isinstance(result, RunFolder))
    assert isinstance(got[1 - winner], ConfigError)
    assert f"it has epochs {5 + winner}, not {6 - winner}" in str(got[1 - winner])
    assert read_recipe(Path("run/recipe.toml")) == RECIPES[winner]


def test_without_a_name_the_other_takes_the_next(together: Callable[[Path | None], list[Any]]) -> None:
    got = together(None)
    assert {result.path for result in got} == {Path("runs/convnext_v2_atto"), Path("runs/convnext_v2_atto-2")}
    assert [read_recipe(folder.recipe) for folder in got] == RECIPES


def test_who_waits_for_a_folder_sees_that_another_has_begun_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one trains in it by now: it is not waited for, as it will never be ours."""
    monkeypatch.setattr(folder_module, "LOCK_TIMEOUT_S", 10.0)
    out, looked, began = tmp_path / "run", threading.Event(), threading.Event()
    is_free = folder_module._is_free

    def look(path: Path) -> bool:
        free = is_free(path)
        looked.set()
        assert began.wait(timeout=10)
        return free

    with ThreadPoolExecutor(1) as thread:
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "_is_free", look)
            second = thread.submit(open_folder, RECIPES[1], out)
            assert looked.wait(timeout=10)
            patch.undo()
            first = open_folder(RECIPES[0], out)
        with first.locked():
            began.set()
            with pytest.raises(ConfigError, match="holds something else than this run"):
                second.result(timeout=5)
