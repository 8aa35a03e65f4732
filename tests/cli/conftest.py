"""Running the command line in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from birder.cli.__main__ import main
from birder.training import fit as fit_module
from birder.training.recipe import Recipe

Birder = Callable[..., tuple[int, str, str]]


@pytest.fixture
def birder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Birder:
    """Run ``birder`` with some words; exit code, output, and what went to the error stream."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["birder", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are given no folder go to ``runs`` of the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that would have been trained."""
    recipes: list[Recipe] = []

    def fit(recipe: Recipe, out: Path | None, *, console: object) -> fit_module.Fitted:
        recipes.append(recipe)
        model = "best" if recipe.objective.labelled else "last"
        return fit_module.Fitted(folder=Path("run"), model=Path(f"run/{model}.safetensors"), top1=None)

    monkeypatch.setattr(fit_module, "fit", fit)
    return recipes
