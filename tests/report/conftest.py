"""Invented sources, and a browser without a network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from birder.data.samples import Files, Samples
from birder.evaluation.classification import Evaluation
from birder.report.assembled import build_report
from birder.report.render import render
from birder.report.sources import Source

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 2">',
    "</script><script>window.hacked = 3</script>",
    "{{script}}",
    "&lt;b&gt; O'Hara",
)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Samples]:
    """Makes so many pictures of classes of these names; they are noise, of 24 x 16 pixels."""

    def make(names: tuple[str, ...], each: int = 6) -> Samples:
        random = np.random.default_rng(0)
        paths = []
        for label in range(len(names)):
            for number in range(each):
                path = tmp_path / "data" / f"class {label}" / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 255, (16, 24, 3), np.uint8)).save(path)
                paths.append(path)
        labels = np.repeat(np.arange(len(names)), each)
        return Samples(Files.at(paths), labels, {name: label for label, name in enumerate(names)})

    return make


@pytest.fixture
def source() -> Callable[..., Source]:
    """Makes a table's opinion on pictures: random, and the better the higher ``skill``."""

    def make(samples: Samples, *, name: str = "results.csv", skill: float = 1.5, seed: int = 0) -> Source:
        random = np.random.default_rng(seed)
        names = list(samples.class_to_idx)
        logits = random.normal(size=(len(samples), len(names)))
        logits[np.arange(len(samples)), samples.labels] += skill
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        ranked = np.argsort(-probabilities, axis=1)[:, :5]
        evaluation = Evaluation(
            names=names,
            paths=samples.paths,
            labels=samples.labels,
            ranked=ranked.astype(np.int32),
            probabilities=np.take_along_axis(probabilities, ranked, axis=1).astype(np.float32),
            label_probability=probabilities[np.arange(len(samples)), samples.labels].astype(np.float32),
            failures=[],
        )
        table = Path(samples.name(0)).parents[2] / name
        table.write_text("a table")
        return Source(name=name, samples=samples, evaluation=evaluation, table=table)

    return make


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a report from disk; a request to anywhere else, or an error in the console, fails the test at its end."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def route(request: Any) -> None:
        if request.request.url.startswith(("file:", "data:")):
            request.continue_()
        else:
            troubles.append(f"asked for {request.request.url[:100]}")
            request.abort()

    def make(report: dict[str, Any], **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_text(render(report), encoding="utf-8")
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.route("**/*", route)
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield make
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture
def report(pictures: Callable[..., Samples], source: Callable[..., Source]) -> dict[str, Any]:
    """Eight species, whose names do their worst, in two families."""
    samples = pictures((*HOSTILE, "Great Tit", "Magpie", "Wren"), each=8)
    family_of = {name: "Fam <i>one</i>" if number % 2 else "Two" for number, name in enumerate(samples.class_to_idx)}
    return build_report([source(samples)], title="A <b>report</b> & more", family_of=family_of, command="birder report")


@pytest.fixture
def with_map(report: dict[str, Any]) -> dict[str, Any]:
    """The same report as if it were of a model: with a map, and with what a network looked at."""
    random = np.random.default_rng(1)
    part, shown = report["sources"][0], list(range(len(report["pictures"])))
    part["kind"] = "model"
    part["map"] = {
        "method": "PCA",
        "share": 0.4,
        "x": random.random(len(shown)).round(3).tolist(),
        "y": random.random(len(shown)).round(3).tolist(),
        "pictures": shown,
        "label": [picture["label"] for picture in report["pictures"]],
        "predicted": [picture["answers"][0][0][0] for picture in report["pictures"]],
        "confidence": [picture["answers"][0][0][1] for picture in report["pictures"]],
    }
    report["sprite"] = {"url": report["pictures"][0]["url"], "pictures": shown, "tile": 2, "columns": 8}
    part["looked_at"] = {"method": "grad-cam", "grid": 2, "heat": {str(place): "AP8A/w==" for place in shown}}
    return report
