"""The page is one file whose data cannot become code."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from birder.report.render import SCRIPTS, render


class Page(html.parser.HTMLParser):
    """Reads a page as a browser does: scripts, styles, and every address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self.style = self.title = self.policy = ""
        self.addresses: list[str] = []
        self._open: tuple[str, dict[str, Any]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._open = (tag, values)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag == "script":
            self.scripts.append((values, ""))
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        tag, values = self._open or ("", {})
        if tag == "script":
            self.scripts[-1] = (values, self.scripts[-1][1] + data)
        elif tag == "style":
            self.style += data
        elif tag == "title":
            self.title += data


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_hostile_names_stay_data(report: dict[str, Any]) -> None:
    page = Page(render(report))
    (kind, data), (plain, script) = page.scripts
    assert kind == {"type": "application/json", "id": "data"} and plain == {}
    assert json.loads(data) == report
    assert "<" not in data and "hacked" not in script
    assert page.title == "A <b>report</b> & more"


def test_nothing_is_asked_for_and_nothing_else_runs(report: dict[str, Any]) -> None:
    page = Page(render(report))
    assert page.addresses == ["data:,", "#content"]
    policy = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert policy == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(page.style),
        "script-src": digest(page.scripts[1][1]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "url(" not in page.style and "@import" not in page.style


def test_the_script_makes_no_markup() -> None:
    folder = Path(str(files("birder.report"))) / "page"
    assert {path.stem for path in folder.glob("*.js")} == set(SCRIPTS)
    for name in SCRIPTS:
        text = (folder / f"{name}.js").read_text(encoding="utf-8")
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|fetch\(|import", text
        )
        assert not found, name


def test_the_script_is_sound(report: dict[str, Any], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("scripts are parsed with node, which is not installed")
    (tmp_path / "page.js").write_text(Page(render(report)).scripts[1][1], encoding="utf-8")
    subprocess.run([node, "--check", tmp_path / "page.js"], check=True, capture_output=True)


def test_numbers_that_are_none_cannot_be_written(report: dict[str, Any]) -> None:
    report["sources"][0]["summary"]["pictures"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        render(report)
